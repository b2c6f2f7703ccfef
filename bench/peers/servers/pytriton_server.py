# mypy: ignore-errors
"""PyTriton: Triton's front, and a Python function in a process of its own behind it.

Settings: the dynamic batcher up to the common limit without a delay, one function instance a core
(triton-inference-server.github.io/pytriton, "model configuration").
"""

import numpy as np
from given import FEATURES, INPUT, NAME, OUTPUT, OUTPUTS, PORT, ROWS_MAX, SPARE_PORTS, WORKERS, Model
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def make():
    model = Model()

    @batch
    def score(**inputs):
        return [model.score(inputs[INPUT])]

    return score


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=PORT,
        grpc_address="127.0.0.1",
        grpc_port=SPARE_PORTS[0],
        metrics_port=SPARE_PORTS[1],
        allow_metrics=False,
        log_verbose=0,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=NAME,
            infer_func=[make() for _ in range(WORKERS)],
            inputs=[Tensor(name=INPUT, dtype=np.float32, shape=(FEATURES,))],
            outputs=[Tensor(name=OUTPUT, dtype=np.float32, shape=(OUTPUTS,))],
            config=ModelConfig(max_batch_size=ROWS_MAX, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
            strict=True,
        )
        triton.serve()
