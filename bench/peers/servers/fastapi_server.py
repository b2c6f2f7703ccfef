# mypy: ignore-errors
"""FastAPI and onnxruntime by hand, as its tutorial writes it: a typed body, a typed answer, an async route.

Settings: uvicorn with uvloop and httptools, no access log, one worker a core; the answer's type is declared, so that
pydantic writes the JSON (fastapi.tiangolo.com/advanced/custom-response). No batching: that is what by hand gives.
"""

import uvicorn
from fastapi import FastAPI
from given import PORT, WORKERS, Model
from pydantic import BaseModel


class Rows(BaseModel):
    input_data: list[list[float]]


app = FastAPI()
model = Model()


@app.post("/score")
async def score(rows: Rows) -> list[list[float]]:
    return model.score(rows.input_data).tolist()


if __name__ == "__main__":
    uvicorn.run(
        "fastapi_server:app" if WORKERS > 1 else app,
        host="127.0.0.1",
        port=PORT,
        workers=WORKERS,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=1024,
    )
