# Easel in a container. `docker build -t easel .` makes the image for CPUs;
# `docker build -t easel:cuda --build-arg DEVICE=cuda .` makes the one that uses a GPU where there is one.

# What is fetched: libtorch, the same pinned wheels as `make libtorch`.
FROM rust:1.95-slim-trixie AS libtorch
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /easel
COPY .cargo/libtorch* .cargo/
RUN bash .cargo/libtorch.sh

# The dependencies are compiled against empty sources, so that a change in src/ does not compile them again.
FROM libtorch AS build
ENV CARGO_PROFILE_RELEASE_DEBUG=none
COPY .cargo/build.rs .cargo/config.toml .cargo/
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it tests/load benches/serving \
    && touch src/lib.rs tests/it/main.rs tests/load/main.rs benches/serving/main.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked
COPY config config
COPY migrations migrations
COPY models/demo/tokenizer models/demo/tokenizer
COPY openapi.yaml ./
COPY src src
# Cargo goes by modification times; the empty sources must be the older ones.
RUN find src -name '*.rs' -exec touch {} + && cargo build --release --locked

# The libraries that go into the image: what Easel links against, and with DEVICE=cuda what libtorch needs for a GPU.
FROM libtorch AS libraries
ARG DEVICE=cpu
COPY src/sys/cuda/easel_cuda.cpp src/sys/cuda/
RUN case "$DEVICE" in \
        cpu) ;; \
        cuda) bash .cargo/libtorch.sh cuda && rm .libtorch/lib/*.stamp ;; \
        *) echo "DEVICE must be cpu or cuda, not $DEVICE" >&2; exit 1 ;; \
    esac

FROM debian:trixie-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin easel \
    && install --directory --owner easel --group easel /data
COPY --from=libraries /easel/.libtorch/lib/ /usr/local/lib/
# The binary looks for its libraries in ../lib, and for its default model in models/demo of the folder that it is started in.
WORKDIR /usr/local/share/easel
COPY config/default.toml config/
COPY models/demo models/demo
COPY --from=build /easel/target/release/easel /usr/local/bin/
ENV EASEL__SERVER__BIND=0.0.0.0:8080 \
    EASEL__STORE__URL=sqlite:///data/easel.db \
    EASEL__PICTURES__URL=/data/pictures
USER 10001:10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Loading a large model takes minutes, during which the container is "starting".
HEALTHCHECK --interval=15s --timeout=5s --start-period=5m --retries=3 CMD ["easel", "health"]
ENTRYPOINT ["easel"]
CMD ["serve"]
