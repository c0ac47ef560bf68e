//! The wiring: from settings to a server that listens, and from a signal to a server that has stopped.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use prometheus::IntGauge;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    api::{ApiSettings, ApiState, AuthSettings, KeySettings, ServeSettings, router, serve},
    config::{
        AuthConfig, Config, CudaAttention, DispatchConfig, Dtype, KeyConfig, LoadTime, PredictionTypeSetting, RetentionConfig,
        ServerConfig, Tiling,
    },
    diffusion::{
        AttentionKernel, EngineSettings, FileSettings, GpuSettings, LoadError, ModelFolder, Precision, ResidencySettings,
        StableDiffusion, VaeTiling, describe_models, schedulers::PredictionType,
    },
    dispatch::{
        DispatchSettings, Dispatcher, Doors, LocalEvents, RetentionSettings, StepLimits, Workers,
        ports::{Engine, EngineError, Quota, Quotas, StoreError},
    },
    domain::Owner,
    store::{ObjectPictures, SqliteStore},
    telemetry::Metrics,
};

/// How long open connections may take to end once every job has been dealt with.
const HANG_UP: Duration = Duration::from_secs(5);

/// A server that listens but does not answer yet.
#[derive(Debug)]
pub struct Application {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    serving: ServeSettings,
    connections: IntGauge,
    workers: Workers,
}

/// Why the server cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model's folder cannot be used.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The address cannot be listened on.
    #[error("server.bind: cannot listen on {address}: {source}")]
    Bind {
        /// The address of the settings.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Others than this machine could connect, and nothing says who may.
    #[error(
        "server.bind: {address} can be reached from other machines, and no keys are set. Either listen on a loopback address \
         (127.0.0.1:8080), or add keys ([[auth.keys]]; `easel key NAME` makes one), or let everybody in (auth.allow_anonymous = true)"
    )]
    Exposed {
        /// The address of the settings.
        address: String,
    },
    /// The engine could not be loaded, or the device was lost.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A metric is there twice.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Application {
    /// Opens the stores, listens, and begins to load the models. The server is ready when they are loaded.
    ///
    /// # Errors
    /// When a store, a model's configs or the address cannot be used.
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let settings = engine_settings(&config);
        Self::build_with(config, move || Ok(StableDiffusion::load(&settings)?)).await
    }

    /// As [`Self::build`], with an engine of the caller's.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub async fn build_with<E: Engine>(
        config: Config,
        load: impl FnOnce() -> Result<E, EngineError> + Send + 'static,
    ) -> Result<Self, AppError> {
        let models = describe_models(&model_folders(&config))?;
        let metrics = Metrics::new()?;
        let jobs = SqliteStore::open(&config.store.url).await?;
        let pictures = ObjectPictures::open(&config.pictures.url, &jobs.identity().await?).await?;
        let doors = Doors {
            jobs: Arc::new(jobs),
            pictures: Arc::new(pictures),
            events: Arc::new(LocalEvents::default()),
            metrics: metrics.clone(),
        };
        let (listener, address) = listen(&config).await?;
        let (dispatcher, workers) = Dispatcher::start(doors, models, dispatch_settings(&config), load);
        let (serving, connections) = (serve_settings(&config.server), metrics.connections.clone());
        let router = router(ApiState { dispatcher, metrics, settings: api_settings(&config) });
        Ok(Self { listener, address, router, serving, connections, workers })
    }

    /// The port that it listens on; for settings that leave the choice to the system.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until `shutdown` resolves or the device is lost, then drains: running jobs finish in time or go back to the queue, and
    /// clients can ask for them until that is done.
    ///
    /// # Errors
    /// When the device was lost, or the models could not be loaded.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { listener, address, router, serving, connections, workers } = self;
        info!(server.address = %address, "listening");
        let hang_up = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, serving, connections, hang_up.clone()));
        tokio::select! {
            () = shutdown => {}
            error = workers.failed() => warn!(%error, "the device can paint no more"),
        }
        let drained = workers.drain().await;
        hang_up.cancel();
        if timeout(HANG_UP, server).await.is_err() {
            warn!("some connections were still open");
        }
        Ok(drained?)
    }
}

/// Listens, on a loopback address unless the settings say who may come in.
async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), AppError> {
    let address = &config.server.bind;
    let failed = |source| AppError::Bind { address: address.clone(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    // What was bound is looked at, not what was asked for: a name may stand for any address.
    if !bound.ip().to_canonical().is_loopback() && !config.auth.is_fit_for_networks() {
        return Err(AppError::Exposed { address: address.clone() });
    }
    Ok((listener, bound))
}

/// What the settings say about the engine.
pub fn engine_settings(config: &Config) -> EngineSettings {
    EngineSettings {
        device: config.device.name.clone(),
        dtype: match config.device.dtype {
            Dtype::Auto => Precision::Auto,
            Dtype::Float32 => Precision::Float32,
            Dtype::Bfloat16 => Precision::Bfloat16,
            Dtype::Float16 => Precision::Float16,
        },
        batch_invariant: config.device.batch_invariant.0,
        gpu: gpu_settings(config),
        threads: config.device.threads,
        vae_tiling: match config.device.vae_tiling {
            Tiling::Auto => VaeTiling::Auto,
            Tiling::Always => VaeTiling::Always,
            Tiling::Never => VaeTiling::Never,
        },
        vae_memory: (config.device.vae_memory_mib > 0).then_some(config.device.vae_memory_mib << 20),
        prompt_cache: config.device.prompt_cache_mib << 20,
        prompt_kv_cache: config.device.prompt_kv_cache_mib << 20,
        models: model_folders(config),
        residency: residency_settings(config),
    }
}

fn gpu_settings(config: &Config) -> GpuSettings {
    GpuSettings {
        graphs: config.device.cuda_graphs.0,
        kernels: config.device.cuda_kernels.0,
        attention: match config.device.cuda_attention {
            CudaAttention::Auto => None,
            CudaAttention::Flash => Some(AttentionKernel::Flash),
            CudaAttention::MemoryEfficient => Some(AttentionKernel::MemoryEfficient),
            CudaAttention::Cudnn => Some(AttentionKernel::CuDnn),
        },
    }
}

/// A job that would have waited for nobody waits no longer than this part of a stay for one that may not come.
const RESTS_PER_STAY: u32 = 20;

fn residency_settings(config: &Config) -> ResidencySettings {
    let mib = config.device.model_memory_mib;
    let later = config.models.iter().filter(|model| model.load == LoadTime::FirstUse);
    ResidencySettings {
        memory: (mib > 0).then_some(mib << 20),
        on_first_use: later.map(|model| model.name.clone()).collect(),
        retry: Duration::from_secs(config.device.model_retry_seconds),
        rest: Duration::from_secs(config.dispatch.model_stay_seconds) / RESTS_PER_STAY,
    }
}

fn model_folders(config: &Config) -> Vec<ModelFolder> {
    let folder = |model: &crate::config::ModelConfig| ModelFolder {
        name: model.name.clone(),
        path: model.path.clone(),
        files: FileSettings {
            vae: model.vae.clone(),
            text_encoder: model.text_encoder.clone(),
            text_encoder_2: model.text_encoder_2.clone(),
            prediction_type: model.prediction_type.map(prediction_type),
            ema: model.ema,
        },
        guidance_scale: model.guidance_scale,
        num_inference_steps: model.num_inference_steps,
        max_size: model.max_size,
        fp8_linears: model.fp8_linears,
        random: None,
    };
    config.models.iter().map(folder).collect()
}

fn prediction_type(setting: PredictionTypeSetting) -> PredictionType {
    match setting {
        PredictionTypeSetting::Epsilon => PredictionType::Epsilon,
        PredictionTypeSetting::VPrediction => PredictionType::VPrediction,
        PredictionTypeSetting::Sample => PredictionType::Sample,
    }
}

fn dispatch_settings(config: &Config) -> DispatchSettings {
    DispatchSettings {
        lease: Duration::from_secs(config.dispatch.lease_seconds),
        max_attempts: config.dispatch.max_attempts,
        max_queued_jobs: config.dispatch.max_queued_jobs,
        max_canvases: config.dispatch.max_canvases,
        step: step_limits(&config.dispatch),
        drain: Duration::from_secs(config.server.drain_seconds),
        ageing: Duration::from_secs(config.dispatch.ageing_seconds),
        model_stay: Duration::from_secs(config.dispatch.model_stay_seconds),
        warm_up: config.device.warm_up.0,
        quotas: quotas(&config.auth),
        retention: retention_settings(&config.retention),
    }
}

fn retention_settings(retention: &RetentionConfig) -> RetentionSettings {
    RetentionSettings {
        results: Some(Duration::from_secs(retention.result_seconds)).filter(|results| !results.is_zero()),
        tombstones: Duration::from_secs(retention.removed_seconds),
        idempotency_keys: Duration::from_secs(retention.idempotency_seconds),
        period: Duration::from_secs(retention.check_seconds),
        sweep_period: Duration::from_secs(retention.sweep_seconds),
    }
}

/// What the settings say about the size of a UNet call.
pub fn step_limits(dispatch: &DispatchConfig) -> StepLimits {
    StepLimits { rows: dispatch.max_step_rows, pixels: dispatch.max_step_pixels }
}

fn api_settings(config: &Config) -> ApiSettings {
    ApiSettings {
        max_body_bytes: config.server.max_body_bytes,
        body_timeout: Duration::from_secs(config.server.body_timeout_seconds),
        max_event_streams: config.server.max_event_streams,
        max_wait: Duration::from_secs(config.server.max_wait_seconds),
        keep_alive: Duration::from_secs(config.server.keep_alive_seconds),
        auth: auth_settings(&config.auth),
    }
}

fn auth_settings(auth: &AuthConfig) -> AuthSettings {
    let key = |key: &KeyConfig| KeySettings {
        owner: Owner::named(&key.name),
        sha256: key.sha256.clone(),
        is_admin: key.admin,
        requests_per_second: key.requests_per_second.unwrap_or(auth.requests_per_second),
    };
    AuthSettings {
        keys: auth.keys.iter().map(key).collect(),
        allow_anonymous: auth.allow_anonymous,
        anonymous_requests_per_second: auth.requests_per_second,
    }
}

fn quotas(auth: &AuthConfig) -> Quotas {
    let limit = |jobs: u64| (jobs > 0).then_some(jobs);
    let everyone = Quota { max_queued_jobs: limit(auth.max_queued_jobs), max_running_jobs: limit(auth.max_running_jobs) };
    let own = |key: &KeyConfig| {
        let quota = Quota {
            max_queued_jobs: key.max_queued_jobs.map_or(everyone.max_queued_jobs, limit),
            max_running_jobs: key.max_running_jobs.map_or(everyone.max_running_jobs, limit),
        };
        (Owner::named(&key.name), quota)
    };
    Quotas { everyone, named: auth.keys.iter().map(own).collect() }
}

fn serve_settings(server: &ServerConfig) -> ServeSettings {
    ServeSettings {
        max_connections: server.max_connections,
        header_timeout: Duration::from_secs(server.header_timeout_seconds),
        idle_timeout: Duration::from_secs(server.idle_timeout_seconds),
        write_timeout: Duration::from_secs(server.write_timeout_seconds),
    }
}
