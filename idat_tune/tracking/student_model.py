"""A student as an MLflow model: this file and the package go with it as code, so that MLflow alone loads it."""

from typing import Any

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

IMAGE, LABEL, PROBABILITY, TOP = "image", "label", "probability", "top"


class StudentModel(mlflow.pyfunc.PythonModel):
    """Images as files have them, in bytes; out come labels and probabilities."""

    def load_context(self, context: Any) -> None:
        """Load the student that was exported."""
        from idat_tune import export

        self.student = export.load(context.artifacts["student"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """A row per image: the most probable label, its probability (0..1), and the `top` labels with theirs.

        Args:
            context: unused.
            model_input: a table with a column `image`: the bytes of a file of any format that an import takes.
            params: `top`, how many labels to give of each image; 1 unless given.

        Raises:
            MlflowException: what is no image, or no such number; a server answers with 400.
        """
        from idat_tune import predict
        from idat_tune.errors import BadInput

        top = int((params or {}).get(TOP, 1))
        try:
            if top < 1:
                raise BadInput(f"{TOP} is {top}; it is how many labels to give, 1 or more")
            answers = predict.of_bytes(self.student, list(model_input[IMAGE]), top)
        except BadInput as failure:
            raise MlflowException(str(failure), error_code=INVALID_PARAMETER_VALUE) from None
        rows = [
            {LABEL: best[0][0], PROBABILITY: best[0][1], TOP: [{LABEL: label, PROBABILITY: p} for label, p in best]}
            for best in answers
        ]
        return pd.DataFrame(rows, columns=[LABEL, PROBABILITY, TOP])


mlflow.models.set_model(StudentModel())
