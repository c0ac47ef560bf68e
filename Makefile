# Everything from a fresh clone. After any of these, plain `cargo build`, `cargo run` and `cargo test` work with no variables set.

.PHONY: help libtorch libtorch-cuda serve test contract lint bench peers gpu load estimate models memory parity files reference kill crowd soak

help: ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

libtorch: ## Fetch libtorch into .libtorch, once (a LIBTORCH that is set is used instead)
	@bash .cargo/check_tools.sh
	@bash .cargo/libtorch.sh

libtorch-cuda: ## Fetch what a GPU needs, too, once; the same binary then uses it
	@bash .cargo/libtorch.sh cuda

serve: libtorch ## Build with optimizations and serve the demo model on http://127.0.0.1:8080 (ARGS="--config my.toml")
	cargo build --release --locked
	target/release/easel serve $(ARGS)

test: libtorch ## Run all tests (ARGS="name" for some)
	cargo test --locked $(ARGS)

contract: libtorch ## Hold a running server to openapi.yaml with schemathesis, and paint through a client that is made from it
	cargo build --locked
	[ -x .tools/contract/bin/python ] || python3 -m venv .tools/contract
	.tools/contract/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/contract/requirements.txt
	.tools/contract/bin/python tests/contract/run.py

lint: libtorch ## Check format, lints, the documentation's links, and the dependencies' licences, sources and advisories
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	bash .ci/deny.sh

bench: libtorch ## Time every part of full-size models, made on the spot, on the CPU or the GPU (some 10 minutes; ARGS="--model sd15 --profile")
	cargo build --release --locked
	target/release/easel bench --commit "$$(git describe --always --dirty 2>/dev/null)" $(ARGS)

peers: libtorch reference ## Time the same beside diffusers, compiled or not, and OpenVINO (20 GB, some 10 minutes; ARGS=--dry-run: one)
	cargo build --release --locked
	.venv/bin/pip install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
	.venv/bin/python benches/peers/run.py $(ARGS)

gpu: libtorch reference ## Hold a GPU to diffusers in ten minutes (needs `make libtorch-cuda`; ARGS=--compiled: to torch.compile alone; ARGS=--dry-run: a CPU)
	cargo build --release --locked
	.venv/bin/python benches/gpu/run.py $(ARGS)

load: libtorch ## Measure a server under load: latency, pictures a second, what batching brings (some minutes; ARGS="closed --jobs 40")
	cargo bench --locked --bench serving -- --commit "$$(git describe --always --dirty 2>/dev/null)" $(ARGS)

estimate: libtorch ## Measure how right the server's estimates of the ends of jobs are, at several loads (some minutes; ARGS="folder of another model")
	cargo bench --locked --bench load -- estimate $(ARGS)

models: libtorch ## Measure two models in turns where one fits: waits, loads, switches, memory (some minutes)
	cargo bench --locked --bench load -- models

crowd: libtorch ## Measure what 200 event readers and 5,000 resting connections cost (some minutes)
	cargo bench --locked --bench load -- crowd

reference: # diffusers and the rest of what Easel is held against, once
	[ -x .venv/bin/python ] || python3 -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r tests/golden/requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps -r tests/golden/requirements-samplers.txt

parity: libtorch reference ## Hold families × tasks × schedulers, and full-size networks, against diffusers (14 GB, some 20 minutes)
	.venv/bin/python tests/parity/run.py $(ARGS)

files: libtorch reference ## Hold single files and `easel convert` against diffusers' from_single_file (a minute; ARGS=--full: 10 GB)
	cargo build --release --locked
	.venv/bin/python tests/golden/single_files.py target/release/easel $(ARGS)

memory: libtorch reference ## Measure time and memory of full-size models, loading and painting, against diffusers (16 GB, some 20 minutes)
	cargo build --release --locked
	.venv/bin/python tests/memory/run.py $(ARGS)

MINUTES ?= 30
soak: libtorch ## Keep the queue full for MINUTES=30 and watch memory, descriptors and files
	cargo bench --locked --bench load -- soak $(MINUTES)

kill: libtorch ## Kill a loaded server ten times and compare every picture (some minutes)
	cargo bench --locked --bench load -- kill
