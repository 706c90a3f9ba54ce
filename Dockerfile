# onemask on a CPU, in the folder that is mounted as /work:
#
#   docker build --tag onemask .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" onemask run clip.mp4 --mask first.png --out result
#
# PyTorch's wheels without CUDA, which spare gigabytes, are on an index of its own:
#   docker build --tag onemask --build-arg TORCH_INDEX=ADDRESS .

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ARG TORCH_INDEX=""
ARG EXTRAS="export,matte,onnx"
COPY constraints.txt /wheels/
COPY --from=wheel /wheels /wheels
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --constraint /wheels/constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
    fi \
    && pip install --no-cache-dir --constraint /wheels/constraints.txt "$(ls /wheels/*.whl)[$EXTRAS]" \
    && rm -r /wheels
# Anyone may run it: weights of one's own, and what was found out about the machine, go here.
ENV ONEMASK_HOME=/tmp/onemask
WORKDIR /work
ENTRYPOINT ["onemask"]
CMD ["--help"]
