# docker build -t slm-research .
# docker run --gpus all -it --rm --shm-size=2g -v $(pwd):/app slm-research
#
# Any glibc base works: the locked environment brings its own PyTorch, JAX and CUDA libraries. It needs only the driver of
# the host. For example: docker build --build-arg BASE=ubuntu:24.04 -t slm-research .
ARG BASE=nvcr.io/nvidia/pytorch:25.03-py3
FROM ${BASE}

# torch.compile needs a compiler; downloads of data sets need curl and certificates.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        ca-certificates curl git gcc g++ libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir uv && ln -s /opt/uv/bin/uv /opt/uv/bin/uvx /usr/local/bin/

# The environment is outside /app, because users mount their checkout over /app.
# PIP_CONSTRAINT and PYTHONPATH are unset, because those of the PyTorch images point at other packages.
ENV UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_CACHE_DIR=/opt/uv-cache \
    UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    PIP_CONSTRAINT= \
    PYTHONPATH= \
    PATH=/opt/venv/bin:$PATH
WORKDIR /app

# Dependencies come first, so that this layer is built again only if the lock changes.
COPY pyproject.toml uv.lock README.md ./
RUN --mount=type=cache,target=/opt/uv-cache uv sync --locked --no-install-project

COPY . .
RUN --mount=type=cache,target=/opt/uv-cache uv sync --locked

CMD ["bash"]
