"""Part `solver`: ours against a bare loop, PyTorch and POT, at equal error of the class marginal."""

import statistics
import time

import jax
import numpy as np

from dsink_jax import surrogate_labels
from experiments.benchmark.contestants import CONTESTANTS, Task, bare_loop
from experiments.benchmark.settings import Settings
from experiments.benchmark.table import Row, comparison
from experiments.benchmark.timing import alternate
from experiments.solver_accuracy import problem

SHAPES = ((128, 10), (128, 100), (1024, 100), (1024, 1000), (8192, 1000), (65536, 1000))
QUICK_SHAPES = ((64, 10), (64, 20))
ERRORS = (1e-3, 1e-6)
LOGIT_SCALE = 5.0  # standard deviation, as of a trained network
LONGEST_SECONDS = 25.0  # of one call; what would take longer is left out
ALL_THREADS_FROM = 10_000_000  # entries, from which trying numbers of threads would take minutes
_ROUNDING = 1.1  # times the error that was asked for
SECONDS = 4.0  # for the rounds of one task


def measure(settings: Settings) -> tuple[list[Row], list[str]]:
    """Rows and remarks of this part."""
    rows, remarks, sizes = [], [], {name: [] for name in CONTESTANTS}
    rates: dict[str, float] = {}  # seconds by element and iteration of the size before, to estimate with
    for shape in QUICK_SHAPES if settings.quick else SHAPES:
        arrays = [np.asarray(array) for array in problem(jax.random.key(0), shape, LOGIT_SCALE)]
        for error in ERRORS:
            task = make_task(*arrays, error)
            work = shape[0] * shape[1] * task.iterations
            case = f"{shape[0]:,} x {shape[1]:,}, error {error:g}"
            estimates = {name: work * rates.get(name, 0.0) for name in ("PyTorch loop", "POT")}
            left_out = [name for name, estimate in estimates.items() if estimate > LONGEST_SECONDS]
            remarks += [
                f"{name} left out of {case}: it would take about {estimates[name]:.0f} s a call."
                for name in left_out
            ]
            if "POT" not in left_out:
                task = with_pot_iterations(task)
            entrants = {name: enter(task) for name, enter in CONTESTANTS.items() if name not in left_out}
            times, errors = race(task, entrants)
            for name, seconds in times.items():
                rates[name] = min(seconds) / work
                count = task.own_iterations if name == "ours" else task.iterations
                sizes[name].append((*shape, statistics.median(seconds) / count))
            remarks += [
                f"{name} ends {case} at {reached:.1e}: its rounding in float32, more iterations do not help."
                for name, reached in errors.items()
                if reached > _ROUNDING * error
            ]
            rows += _rows(shape, case, task, times, errors)
            print(f"  {case}: {len(times['ours'])} rounds", flush=True)
    for name, found in sizes.items():
        if len({size[:2] for size in found}) >= 3:
            n, c = growth(found)
            remarks.append(f"Seconds an iteration of {name} grow as N^{n:.2f} C^{c:.2f}.")
    return rows, remarks


def make_task(logits, noise_robust_logits, marginal, error: float) -> Task:
    """The task at one error, with as many iterations as ours takes, and as a plain loop takes."""
    solve = jax.jit(lambda *arrays: surrogate_labels(*arrays, threshold=error, max_iterations=1000))
    allocation = solve(logits, noise_robust_logits, marginal)
    if not allocation.converged:
        raise RuntimeError(f"The solver did not reach an error of {error:g}.")
    own = int(allocation.iterations)
    task = Task(logits, noise_robust_logits, marginal, error, own, own, 0)
    # From the 30th iteration on ours over-relaxes. Rounding may keep a loop above the error: not for ever.
    while _ROUNDING * error < marginal_error(bare_loop(task)(), marginal) and task.iterations < 5 * own:
        task = task._replace(iterations=task.iterations + 10)
    return task


def with_pot_iterations(task: Task) -> Task:
    """The task with the first of POT's looks at the error that finds it small enough."""
    earlier = task.iterations - 9
    reached = marginal_error(bare_loop(task._replace(iterations=earlier))(), task.marginal) <= task.error
    return task._replace(pot_iterations=earlier if reached else task.iterations + 1)


def marginal_error(labels, marginal) -> float:
    """L1 distance of the mean label from the class marginal, in float64."""
    mean = np.asarray(labels).mean(0, dtype=np.float64)
    return float(np.abs(mean - np.asarray(marginal, np.float64)).sum())


def race(task: Task, entrants) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of all entrants in turn, and the error that each ended with."""
    errors, slowest = {}, 0.0
    for name, solve in entrants.items():
        if name == "PyTorch loop" and task.logits.size < ALL_THREADS_FROM:
            from experiments.benchmark.torch_reference import best_threads

            best_threads(solve)  # larger tasks keep what the largest of these found best
        before = time.perf_counter()
        errors[name] = marginal_error(solve(), task.marginal)
        slowest = max(slowest, time.perf_counter() - before)
    warm_ups = 0 if slowest > LONGEST_SECONDS / 5 else 1
    return alternate(entrants, rounds=3, seconds=SECONDS, at_most=50, warm_ups=warm_ups), errors


def growth(sizes: list[tuple[int, int, float]]) -> tuple[float, float]:
    """Exponents of N and C by least squares of the logarithm of the time, from (N, C, seconds)."""
    n, c, seconds = np.log(np.asarray(sizes, np.float64)).T
    solution, *_ = np.linalg.lstsq(np.stack([n, c, np.ones_like(n)], 1), seconds, rcond=None)
    return float(solution[0]), float(solution[1])


def _rows(shape, case, task, times, errors):
    limit = 1.2 if shape[0] * shape[1] >= 1024 * 100 else 1.6
    rounds = len(times["ours"])
    for name in times:
        if name != "ours":
            target = f"<= {limit}" if name == "bare lax loop" else "< 1"
            note = (
                f"{task.own_iterations} and {task.pot_iterations if name == 'POT' else task.iterations} "
                f"iterations, errors {errors['ours']:.1e} and {errors[name]:.1e}, "
                f"{rounds} round{'s' * (rounds > 1)}"
            )
            yield comparison("solver", case, times, "ours", name, target, note)
