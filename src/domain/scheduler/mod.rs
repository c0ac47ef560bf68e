//! The names of the noise schedulers that a request may ask for.

mod algorithm;

use std::{fmt, sync::LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use algorithm::SchedulerAlgorithm;

/// How a scheduler chooses the noise levels that it visits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SigmaSchedule {
    /// As the model's config says.
    #[default]
    Own,
    /// Equation (5) of Karras et al. (2022).
    Karras,
    /// Even in the logarithm of σ.
    Exponential,
    /// As the quantiles of a beta distribution (Lee et al., 2024).
    Beta,
    /// From the training's last timestep, evenly down: `timestep_spacing` "trailing" (Lin et al., 2023), Stability AI's generative-models.
    SgmUniform,
}

impl SigmaSchedule {
    /// All that have a name.
    pub const NAMED: [Self; 4] = [Self::Karras, Self::Exponential, Self::Beta, Self::SgmUniform];

    /// What stands behind the algorithm's name: `karras` in `euler_karras`. The model's own has no name.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::Karras => Some("karras"),
            Self::Exponential => Some("exponential"),
            Self::Beta => Some("beta"),
            Self::SgmUniform => Some("sgm_uniform"),
        }
    }

    /// How spellings end that mean it, in their [`bare`] form: the name; `_ka` and `_exp` of k-diffusion's names; `_trailing` of
    /// stable-diffusion.cpp's.
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Own => &[""],
            Self::Karras => &["karras", "ka"],
            Self::Exponential => &["exponential", "exp"],
            Self::Beta => &["beta"],
            Self::SgmUniform => &["sgmuniform", "trailing"],
        }
    }
}

/// A scheduler as a request names it: an algorithm, and which noise levels it visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchedulerName {
    /// The algorithm.
    pub algorithm: SchedulerAlgorithm,
    /// The noise levels.
    pub sigmas: SigmaSchedule,
}

/// Every scheduler that can be asked for, with its canonical name.
static NAMES: LazyLock<Vec<(SchedulerName, String)>> = LazyLock::new(|| {
    let of = |algorithm: &SchedulerAlgorithm| {
        let (algorithm, named) = (*algorithm, algorithm.sigma_schedules());
        let schedules = std::iter::once(SigmaSchedule::Own).chain(named.iter().copied());
        schedules.map(move |sigmas| {
            let ending = sigmas.name().map(|name| format!("_{name}")).unwrap_or_default();
            (SchedulerName { algorithm, sigmas }, format!("{}{ending}", algorithm.name()))
        })
    };
    SchedulerAlgorithm::ALL.iter().flat_map(of).collect()
});

impl SchedulerName {
    /// The algorithm with the model's own noise levels.
    pub const fn own(algorithm: SchedulerAlgorithm) -> Self {
        Self { algorithm, sigmas: SigmaSchedule::Own }
    }

    /// Every scheduler that can be asked for.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(scheduler, _)| *scheduler)
    }

    /// Reads a canonical name or an alias of its algorithm, with or without the name of a sigma schedule behind it. Upper and lower case are
    /// the same, and spaces, hyphens and underscores do not count: "DPM++ 2M Karras", "dpm++2m_karras", "k_dpmpp_2m_ka".
    pub fn parse(text: &str) -> Option<Self> {
        let wanted = bare(text);
        Self::all().find(|scheduler| {
            let stems = scheduler.sigmas.endings().iter().filter_map(|ending| wanted.strip_suffix(ending));
            stems.into_iter().any(|stem| scheduler.algorithm.is_called(stem))
        })
    }

    /// The canonical name, such as `dpmpp_2m_karras`.
    pub fn as_str(self) -> &'static str {
        NAMES.iter().find(|(scheduler, _)| *scheduler == self).map_or(self.algorithm.name(), |(_, name)| name)
    }
}

/// A spelling without what does not count in it.
fn bare(text: &str) -> String {
    let counts = |letter: &char| !matches!(letter, ' ' | '-' | '_');
    text.chars().filter(counts).map(|letter| if letter == '+' { 'p' } else { letter.to_ascii_lowercase() }).collect()
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for SchedulerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for SchedulerName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("unknown scheduler {text:?}")))
    }
}
