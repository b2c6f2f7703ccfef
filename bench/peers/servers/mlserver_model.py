# mypy: ignore-errors
"""MLServer: a custom runtime with numpy codecs."""

from given import INPUT, OUTPUT, Model
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Scorer(MLModel):
    async def load(self):
        self._model = Model()
        return True

    async def predict(self, payload):
        rows = next(NumpyCodec.decode_input(one) for one in payload.inputs if one.name == INPUT)
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output(OUTPUT, self._model.score(rows))]
        )
