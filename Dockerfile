# docker build -t slm-research .
# docker run --gpus all -it --rm --shm-size=2g -v $(pwd):/app slm-research
#
# Any glibc base works: the locked environment brings its own PyTorch, JAX and CUDA libraries, and needs only the host's
# driver. For example: docker build --build-arg BASE=ubuntu:24.04 -t slm-research .
ARG BASE=nvcr.io/nvidia/pytorch:25.03-py3
FROM ${BASE}

# A compiler is there for torch.compile, curl and certificates for data sets.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates curl git gcc g++ libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv && ln -s /opt/uv/bin/uv /opt/uv/bin/uvx /usr/local/bin/

# The environment lies outside /app, because users mount their checkout over /app.
# PIP_CONSTRAINT and PYTHONPATH of the PyTorch images point at packages of their own, which must not leak in.
ENV UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_CACHE_DIR=/opt/uv-cache \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    PIP_CONSTRAINT= \
    PYTHONPATH= \
    PATH=/opt/venv/bin:$PATH
WORKDIR /app

# Dependencies first: this layer is built again only when the lock changes.
COPY pyproject.toml uv.lock README.md ./
RUN --mount=type=cache,target=/opt/uv-cache uv sync --locked --no-install-project

COPY . .
RUN --mount=type=cache,target=/opt/uv-cache uv sync --locked

CMD ["bash"]
