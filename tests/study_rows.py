"""Rows of results.csv as a study would have them."""

from experiments.study import records


def rows_of(model, accuracies, role="baseline", setting="a"):
    return [
        {
            **dict.fromkeys(records.RESULT_FIELDS),
            **{
                "budget": "small",
                "setting": setting,
                "model": model,
                "role": role,
                "last": last,
                "few": last,
            },
            **{"seed": seed, "train_images": 544, "wrong_labels": 0.4},
            **{"seconds": 3600.0, "environment": "e"},
        }
        for seed, last in accuracies.items()
    ]
