"""Commands with input that a person can correct, and a word that the error must hold."""

import io

import numpy as np

LONG = "x" * 5000
OT = ("--imbalance-method", "ot_reweighting")
META_TOO_LARGE = ("--ot-reweighting-meta-per-class", "500")
TWO_OF = ("--coordinator", "localhost:1234", "--process-count")

# Flags of experiments.digits.
FLAGS = {
    "unknown data set": ("--dataset cifer10", "Did you mean 'cifar10'"),
    "no data set": (["--dataset", ""], "Unknown data set ''"),
    "unknown model": ("--model resnet2", "Known models"),
    "endless model": (["--model", LONG], "Known models"),
    "unknown f_L": ("--imbalance-method ldma", "Known methods"),
    "unknown f_N": ("--noise-method erl", "Did you mean 'elr'"),
    "f_N in two lines": (["--noise-method", "el\nr"], "control characters"),
    "unknown base": ("--base dsink", "Known methods"),
    "naive as a base": ("--base naive_distillation", "Known methods"),
    "combination as a base": ("--base ensemble", "Known methods"),
    "unknown baseline": ("--baselines cross_entropy,nave", "Unknown method 'nave'"),
    "misspelt combination": ("--baselines ensembel", "Did you mean 'ensemble'"),
    "unknown noise": ("--noise pink", "pink"),
    "unknown flag": ("--alpah 3", "Did you mean --alpha? See --help."),
    "no flag": ("digits", "digits"),
    "not a number": ("--epochs many", "--epochs"),
    "half an epoch": ("--epochs 1.5", "--epochs"),
    "empty number": (["--alpha", ""], "--alpha"),
    "missing value": ("--epochs", "--epochs"),
    "value of a switch": ("--flip yes", "yes"),
    "rate above 1": ("--noise-rate 1.5", "[0, 1]"),
    "rate below 0": ("--noise-rate -0.1", "[0, 1]"),
    "rate not a number": ("--noise-rate nan", "[0, 1]"),
    "ratio below 1": ("--imbalance-ratio 0.5", "at least 1"),
    "ratio infinite": ("--imbalance-ratio inf", "at least 1"),
    "class left empty": ("--imbalance-ratio 1000", "empty"),
    "batch not divisible": ("--batch-size 63 --devices 8", "8 devices"),
    "batch zero": ("--batch-size 0", "at least 1"),
    "batch beyond all memory": ("--batch-size 1000000000000", "at most"),
    "too many devices": ("--devices 99", "99"),
    "no devices": ("--devices 0", "--devices"),
    "epochs zero": ("--epochs 0", "at least 1"),
    "epochs beyond all time": (["--epochs", str(10**30)], "at most"),
    "crop beyond the image": ("--crop-padding 9", "--crop-padding 9"),
    "negative crop": ("--crop-padding -1", "--crop-padding"),
    "negative alpha": ("--alpha -1", "at least 0"),
    "alpha not a number": ("--alpha nan", "at least 0"),
    "negative naive alpha": ("--naive-alpha -1", "--naive-alpha"),
    "negative warm-up": ("--warmup-epochs -1", "--warmup-epochs"),
    "endless ramp": ("--ramp-epochs inf", "--ramp-epochs"),
    "learning rate zero": ("--learning-rate 0", "positive"),
    "learning rate infinite": ("--learning-rate inf", "positive"),
    "unknown schedule": ("--schedule linear", "'cosine'"),
    "momentum one": ("--momentum 1", "[0, 1)"),
    "negative weight decay": ("--weight-decay -1", "at least 0"),
    "threshold zero": ("--threshold 0", "positive"),
    "threshold infinite": ("--threshold inf", "positive"),
    "no iterations": ("--max-iterations 0", "at least 1"),
    "unknown scale of the loss": ("--loss-scale mean", "--loss-scale"),
    "unknown predictions": ("--auxiliary-predictions both", "--auxiliary-predictions"),
    "never evaluated": ("--evaluate-every 0", "--evaluate-every"),
    "never saved": ("--checkpoint-every 0", "--checkpoint-every"),
    "no checkpoint kept": ("--keep-checkpoints 0", "--keep-checkpoints must be at least 1"),
    "checkpoints in words": ("--keep-checkpoints all", "--keep-checkpoints"),
    "NaN to be ignored": ("--on-nan ignore", "'skip'"),
    "NaN unsaid": ("--on-nan", "--on-nan"),
    "no steps in a dispatch": ("--steps-per-dispatch 0", "--steps-per-dispatch"),
    "unknown optimiser": ("--optimizer adam", "'adamw'"),
    "average that never moves": ("--average-decay 1", "--average-decay must be in (0, 1)"),
    "average that keeps nothing": ("--average-decay 0", "(0, 1)"),
    "saved all the time": ("--checkpoint-minutes 0", "--checkpoint-minutes must be positive"),
    "saved at no time": ("--checkpoint-minutes nan", "--checkpoint-minutes must be positive"),
    "one fold": ("--auxiliary-predictions out_of_fold --folds 1", "--folds must be at least 2"),
    "q out of range": ("--noise-method gce --gce-q 2", "gce: q must be in (0.0, 1.0]"),
    "option of a method that is not trained": ("--gce-q 0.5", "--gce-q is an option of gce"),
    "co-teaching without a rate": ("--noise-method coteaching", "--coteaching-noise-rate estimated"),
    "co-teaching's rate in words": (
        "--noise-method coteaching --coteaching-noise-rate much",
        "--coteaching-noise-rate",
    ),
    "no meta set": (OT, "--ot-reweighting-meta-per-class 5"),
    "no meta labels": (
        [*OT, "--ot-reweighting-meta-per-class", "2"],
        "--ot-reweighting-meta-labels observed",
    ),
    "meta set larger than a class": (
        [*OT, "--ot-reweighting-meta-labels", "clean", *META_TOO_LARGE],
        "images a class is too large",
    ),
    "known matrix of human noise": (
        "--noise human_worse --dataset cifar10 --noise-method forward_correction "
        "--forward-correction-matrix known",
        "forward_correction: the transition matrix of human labels is not known",
    ),
    "unknown cost": ([*OT, "--ot-reweighting-cost", "both"], "--ot-reweighting-cost"),
    "unknown penalty": ("--noise-method dividemix --dividemix-penalty some", "--dividemix-penalty"),
    "unknown prior": ("--prior true", "--prior"),
    "unknown prior of f_N": ("--posthoc-prior true", "--posthoc-prior"),
    "unknown type of state": ("--state-dtype int8", "--state-dtype"),
    "unknown type of computation": ("--compute-dtype float64", "--compute-dtype"),
    "naive weight": ("--naive-noise-weight 1.2", "[0, 1]"),
    "negative seed": ("--seed -1", "--seed"),
    "seed beyond 32 bits": (["--seed", str(2**32)], "--seed"),
    "negative data seed": ("--data-seed -1", "--data-seed"),
    "negative map seed": ("--map-seed -1", "--map-seed"),
    "human noise elsewhere": ("--noise human_worse", "--dataset cifar10"),
    "human noise with rate": ("--noise human_worse --noise-rate 0.2", "--noise-rate"),
    "human labels without human noise": ("--human-labels file.npz", "--human-labels goes with"),
    "limit below classes": ("--limit-train 5", "no image"),
    "test limit below classes": ("--limit-test 5", "no image"),
    "unknown test part": ("--test-part half", "--test-part"),
    "no training images": ("--limit-train 0", "--limit-train"),
    "processes without a coordinator": ("--process-count 2", "--coordinator"),
    "index without a coordinator": ("--process-index 0", "--coordinator"),
    "coordinator alone": (
        "--coordinator localhost:1234",
        "--coordinator, --process-count and --process-index go together",
    ),
    "processes without an index": ([*TWO_OF, "2"], "go together"),
    "index beyond the processes": ([*TWO_OF, "2", "--process-index", "2"], "[0, 2)"),
    "negative index": ([*TWO_OF, "2", "--process-index", "-1"], "[0, 2)"),
    "no processes": ([*TWO_OF, "0", "--process-index", "0"], "--process-index"),
    "coordinator without a port": (
        "--coordinator localhost --process-count 1 --process-index 0",
        "host:port",
    ),
    "coordinator with a port in words": (
        "--coordinator localhost:http --process-count 1 --process-index 0",
        "host:port",
    ),
    "coordinator with port 0": ("--coordinator a:0 --process-count 1 --process-index 0", "host:port"),
    # Paths. The folder has file.npz, which is text, and folder.npz.
    "data folder without data": ("--dataset cifar10 --no-download --data-dir .", "cifar10"),
    "data folder that is a file": (
        "--dataset cifar10 --data-dir file.npz",
        "is a file.\nName the folder that holds it: --data-dir or TFDS_DATA_DIR",
    ),
    "arrays in a bucket": ("--dataset s3://bucket/mine.npz", "--dataset s3://bucket/mine.npz: only"),
    "endless data folder": (["--dataset", "cifar10", "--data-dir", LONG], "cannot be used"),
    "missing arrays": ("--dataset nothing.npz", "nothing.npz"),
    "arrays that are text": ("--dataset file.npz", "file.npz cannot be read"),
    "arrays that are a folder": ("--dataset folder.npz", "There is no file folder.npz"),
    "arrays of nobody": ("--dataset ~nobody-here/x.npz", "home directory"),
    "path with a NUL": (["--dataset", "a\0b.npz"], "control characters"),
    "path that is no UTF-8": (["--run-dir", "a\udcff"], "--run-dir must be text"),
    "run directory in a file": ("--run-dir file.npz/run", "--run-dir"),
    "run directory that is a file": ("--run-dir file.npz", "--run-dir"),
    "endless run directory": (["--run-dir", LONG], "--run-dir"),
    "missing corruption": ("--corruption-file nothing.npz", "nothing.npz"),
    "corruption that is text": ("--corruption-file file.npz", "file.npz is not a readable"),
    "corruption that is a folder": ("--corruption-file folder.npz", "folder.npz is not a readable"),
    "corruption of other data": (
        "--corruption-file other.npz --imbalance-ratio 1",
        "not drawn from digits",
    ),
    "corruption of other flags": ("--corruption-file other.npz", "--imbalance-ratio 1.0"),
}

# Flags of the other commands.
STUDIES = {
    "seeds in words": ("embeddings", "--seeds all", "--seeds"),
    "no seeds": ("embeddings", "--seeds", "at least one"),
    "a wrong seed behind a right one": ("embeddings", "--seeds 0 -1", "-1"),
    "flag of another command": ("embeddings", "--epochs 5", "--epochs"),
    "tables in a file": ("embeddings", "--output file.npz", "--output"),
    "no data where they are to be": ("embeddings", "--data-dir file.npz", "is a file"),
    "results of another command": ("embeddings", "--output of_another", "embeddings.csv is not of this"),
    "no data for the audit": ("label_audit", "--data-dir file.npz", "is a file"),
    "seed beyond 32 bits": ("study.__main__", "noise --seeds 4294967296", "--seeds"),
    "study that is none": ("study.__main__", "mian", "main"),
    "study without a name": ("study.__main__", "", "study"),
    "budget that is none": ("study.__main__", "main --budget big", "--budget"),
    "budget that a study lacks": ("study.__main__", "imbalance --budget cpu", "It has: small"),
    "setting that a study lacks": ("study.__main__", "main --settings digits-ratio-11", "Unknown setting"),
    "no jobs": ("study.__main__", "main --jobs 0", "at least 1"),
    "study of a negative seed": ("study.__main__", "main --seeds -1", "--seeds"),
    "study into a file": ("study.__main__", "main --output file.npz", "--output"),
    "accuracy in a file": ("solver_accuracy", "--output file.npz", "--output"),
    "overhead in a bucket": ("overhead", "--output gs://bucket/tables", "--output gs://bucket/tables: only"),
    "accuracy in a bucket": ("solver_accuracy", "--output gs://bucket/x", "--output gs://bucket/x: only"),
    "accuracy of nothing": ("solver_accuracy", "--outptu x", "--output"),
}

IMAGES = np.zeros((20, 8, 8, 1), np.uint8)
LABELS = np.arange(20) % 2
GOOD = {"train_images": IMAGES, "train_labels": LABELS, "test_images": IMAGES, "test_labels": LABELS}


def npz(**changed):
    """The bytes of a data set with some arrays changed, or left out where None."""
    buffer = io.BytesIO()
    arrays = {name: array for name, array in (GOOD | changed).items() if array is not None}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array):
    """The bytes of one array."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# Contents of mine.npz, given by --dataset.
DATA_SETS = {
    "images of rank 3": (npz(train_images=IMAGES[..., 0]), "[..., None]"),
    "no images": (npz(train_images=IMAGES[:0], train_labels=LABELS[:0]), "train_images is empty"),
    "no height": (npz(test_images=IMAGES[:, :0]), "test_images is empty"),
    "labels with gaps": (npz(test_labels=np.full(20, 7)), "gaps"),
    "negative labels": (npz(test_labels=np.full(20, -1)), "-1"),
    "a label of a billion": (npz(train_labels=LABELS + 10**9), "1000000001"),
    "labels beyond the names": (npz(class_names=np.array(["one"])), "0 to 1"),
    "one class": (npz(train_labels=LABELS * 0, test_labels=LABELS * 0), "2 classes"),
    "labels not integers": (npz(train_labels=np.zeros(20)), "integer"),
    "one-hot labels": (npz(train_labels=np.eye(20, dtype=int)), "must be integers [M]"),
    "different lengths": (npz(train_labels=LABELS[1:]), "19"),
    "text images": (npz(train_images=np.full((20, 8, 8, 1), "a")), "uint8"),
    "integer images": (npz(train_images=IMAGES.astype(int)), "uint8"),
    "NaN images": (npz(train_images=np.full((20, 8, 8, 1), np.nan)), "NaN"),
    "images of two sizes": (npz(test_images=IMAGES[:, 1:]), "Training images"),
    "images of two types": (npz(test_images=IMAGES.astype(np.float32)), "float32"),
    "no test set": (npz(test_images=None, test_labels=None), "lacks test_images, test_labels"),
    "objects": (npz(train_labels=np.array([{}] * 20, object)), "Object arrays"),
    "empty file": (b"", "cannot be read"),
    "truncated file": (npz()[:-200], "cannot be read"),
    "damaged file": (npz().replace(b"descr", b"dexcr"), "cannot be read"),
    "one array": (npy(LABELS), "cannot be read"),
    "a zip of nothing": (b"PK\x05\x06" + bytes(18), "lacks train_images"),
}


# Contents of a file with human labels, for CIFAR-10, given by --human-labels.
def human(**arrays):
    """The bytes of such a file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


HUMAN_LABELS = {
    "human labels of another kind": ("h.npz", human(aggre_label=LABELS), "no array worse_label"),
    "human labels too few": ("h.npz", human(worse_label=LABELS), "20 labels, but cifar10 has 50000"),
    "human labels out of range": ("h.npz", human(worse_label=np.full(50_000, 10)), "[0, 10)"),
    "human labels that are shares": ("h.npz", human(worse_label=np.zeros(50_000)), "float64"),
    "human labels of other images": (
        "h.npz",
        human(worse_label=np.zeros(50_000, int), clean_label=np.ones(50_000, int)),
        "another order",
    ),
    "human labels in text": ("h.txt", b"1 2 3", "neither an .npz nor an .npy"),
    "human labels truncated": ("h.npy", npy(LABELS)[:-9], "cannot be read"),
    "human labels that are objects": ("h.npy", npy(np.array([{}], object)), "cannot be read"),
    "no human labels": ("h.npz", None, "There is no file"),
}

# What a file of a run directory was overwritten with; None for removed.
RUN_FILES = {
    "configuration that is a list": ("config.json", b"[]", "config.json is damaged"),
    "configuration cut short": ("config.json", b'{"settings": {"ep', "config.json is damaged"),
    "configuration of nothing": ("config.json", b"{}", "config.json is damaged"),
    "configuration in another code": ("config.json", b"\xff\xfe\x00", "config.json is damaged"),
    "results without a configuration": ("config.json", None, "no config.json"),
    "results that are a list": ("results.json", b"[]", "results.json is damaged"),
    "results cut short": ("results.json", b'{"models":', "results.json is damaged"),
    "results without models": ("results.json", b'{"models": 3}', "results.json is damaged"),
    "results of no model": ("results.json", b'{"models": {"target": 1}}', "results.json is damaged"),
    "corruption cut short": ("corruption.npz", b"PK", "corruption.npz is not a readable"),
    "predictions cut short": ("predictions.npz", b"PK", "predictions.npz is damaged"),
    "corruption lost": ("corruption.npz", None, "corruption.npz"),
}
