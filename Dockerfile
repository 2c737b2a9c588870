# edjax in a container, for CPUs or for NVIDIA GPUs. No continuous integration builds this file: it is a starting point.
#
#   docker build -t edjax .
#   docker build -t edjax-gpu --build-arg EXTRAS=demo,gpu .
#   docker run --rm -v "$PWD:/work" edjax score prompts.jsonl --out features
#   docker run --rm --gpus all -v "$PWD:/work" edjax-gpu doctor
#
# The extra `gpu` brings JAX's own CUDA libraries, so the host needs a driver and its container toolkit, and the image no
# CUDA base. BASE may be another image with a Python of 3.11 or later.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps -w /wheel .

FROM ${BASE}
ARG EXTRAS=demo
COPY --from=build /wheel /wheel
RUN pip install --no-cache-dir "$(echo /wheel/*.whl)[${EXTRAS}]" && rm -r /wheel
# Models and compiled programs, for a volume: -v edjax-cache:/cache. Whoever runs the container may write there.
RUN mkdir -m 1777 /cache /work
ENV EDJAX_CACHE=/cache HF_HOME=/cache/huggingface
WORKDIR /work
ENTRYPOINT ["edjax"]
CMD ["--help"]
