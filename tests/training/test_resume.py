"""resume in both frameworks: the original's next steps from its converted checkpoint, and back into it."""

import importlib

import numpy as np
import pytest
import torch

from bigbird_port.conversion.convert import Settings, convert
from bigbird_port.formats.open_store import open_store
from bigbird_port.formats.store import read
from bigbird_port.training.carried import Asked
from models_flax.training import resume as flax_resume
from models_torch.training import resume as torch_resume
from tests.training.steps import FOLDERS, KEY_BIAS, MINI, SNAPSHOTS, steps_of, worst

LIMIT = 1e-5
FRAMEWORKS = ["torch", pytest.param("flax", marks=pytest.mark.slow)]  # whose compilation takes a while
SOME = {("torch", MINI), ("flax", MINI), ("torch", "crossing"), ("torch", "adafactor")}
EACH = [
    (framework, name) if (framework, name) in SOME else pytest.param(framework, name, marks=pytest.mark.slow)
    for framework in ("torch", "flax")
    for name in (MINI, *FOLDERS)
]


@pytest.fixture(scope="module")
def resumable(tmp_path_factory):
    """Return a function: name of a golden folder -> what convert --optimizer made of its first checkpoint."""
    folder, done = tmp_path_factory.mktemp("resumable"), set()

    def get(name):
        if name not in done:
            convert(steps_of(name).checkpoint, folder / name, Settings(training=Asked()))
            done.add(name)
        return folder / name

    return get


def resume(framework):
    return importlib.import_module(f"models_{framework}.training").resume


def back_in_the_original(run, steps, tmp_path):
    """What a saved run is, as a checkpoint of the original, by canonical names; and its step."""
    run.save(tmp_path / "saved")
    convert(tmp_path / "saved", tmp_path / "back", Settings(to=("tf",), training=Asked()))
    store = open_store(tmp_path / "back/tf").store
    assert set(steps.names.values()) <= set(store.tensors)
    return {name: read(store, stored) for name, stored in steps.names.items()}, int(read(store, "global_step"))


@pytest.mark.parametrize(("framework", "name"), EACH)
def test_eight_steps_are_the_originals(framework, name, resumable, tmp_path):
    steps = steps_of(name)
    run = resume(framework)(resumable(name), head=steps.source.head, loss_style="original")
    first = run.step
    assert first == int(steps.series("global_step")[0])
    losses = [float(run.train_step(steps.batch(n))) for n in range(1, 9)]
    np.testing.assert_allclose(losses, steps.series("loss"), atol=LIMIT)
    found, step = back_in_the_original(run, steps, tmp_path)
    assert step == run.step == first + 8
    expected = steps.after(8)
    told = [key for key in expected if KEY_BIAS not in key]
    assert worst(found, expected, told)[0] < LIMIT
    # The key's bias changes no softmax: its gradient is rounding, and Adafactor divides that by its own size.
    rates = float(steps.series("learning_rate").sum())
    bound = 2e-3 * rates if steps.optimizer == "Adafactor" else LIMIT
    for key in expected:
        if key.endswith(KEY_BIAS):
            assert np.abs(found[key] - expected[key]).max() < bound


def test_a_loop_of_ones_own_takes_the_same_steps(resumable):
    steps = steps_of(MINI)
    run = torch_resume(resumable(MINI), head="pretraining")
    for n in (1, 2):
        features = steps.batch(n)
        labels = np.full(features["input_ids"].shape, -100)
        for row, (places, ids, weights) in enumerate(zip(*(features[f"masked_lm_{x}"] for x in
                                                           ("positions", "ids", "weights")), strict=True)):  # fmt: skip
            labels[row, places[weights > 0]] = ids[weights > 0]
        batch = {"input_ids": features["input_ids"], "token_type_ids": features["segment_ids"], "labels": labels}
        batch = {key: torch.from_numpy(np.asarray(x)).long() for key, x in batch.items()}
        label = torch.from_numpy(features["next_sentence_labels"]).long().flatten()
        assert run.optimizer.param_groups[0]["lr"] == pytest.approx(
            float(steps.series("learning_rate")[n - 1]), rel=1e-5
        )
        loss = run.model(**batch, next_sentence_label=label).loss
        assert loss.item() == pytest.approx(float(steps.series("loss")[n - 1]), abs=LIMIT)
        loss.backward()
        run.optimizer.step()
        run.schedule.step()
        run.optimizer.zero_grad()
    expected = {key: x for key, x in steps.after(2).items() if "/" not in key and not key.endswith(KEY_BIAS)}
    found = {run.resumed.rows[key].name: x.detach().numpy() for key, x in run.model.named_parameters()}
    vectors = {key: x for key, x in expected.items() if x.ndim == 1}  # laid out as here
    assert worst(found, vectors)[0] < LIMIT
    assert 2 in SNAPSHOTS


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_does_not_train_is_held_still(framework, resumable):
    """crossing has no next sentence's loss; from-zero no bias of the attention's output, which both frameworks have."""
    for name, still in (("crossing", "pooler"), ("from-zero", "attention.output.dense.bias")):
        steps = steps_of(name)
        run = resume(framework)(resumable(name))
        before = named(run)
        run.train_step(steps.batch(1))
        run.train_step(steps.batch(2))
        after = named(run)
        held = [key for key in before if still in key]
        assert held
        for key in held:
            np.testing.assert_array_equal(before[key], after[key])
        moved = [key for key in before if not np.array_equal(before[key], after[key])]
        assert set(moved) == set(before) - set(run.resumed.not_trained)
        if framework == "flax":
            return  # one compilation is enough


def named(run):
    """The parameters of a run by canonical names."""
    if hasattr(run, "params"):
        from flax.traverse_util import flatten_dict

        arrays = {key: np.asarray(x) for key, x in flatten_dict(run.params, sep="/").items()}
    else:
        arrays = {key: x.detach().numpy().copy() for key, x in run.model.named_parameters()}
    return {run.resumed.rows[key].name: x for key, x in arrays.items()}


def test_a_saved_run_goes_on_as_if_it_had_not_stopped(resumable, tmp_path):
    steps = steps_of(MINI)
    run = torch_resume(resumable(MINI), loss_style="original")
    run.train_step(steps.batch(1))
    run.save(tmp_path / "saved")
    other = torch_resume(tmp_path / "saved", loss_style="original")
    assert other.step == run.step
    one, two = (float(each.train_step(steps.batch(2))) for each in (run, other))
    assert one == two
    for x, y in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(x, y)
    with pytest.raises(ValueError, match="exists already"):
        run.save(tmp_path / "saved")
    run.save(tmp_path / "saved", overwrite=True)
    assert torch_resume(tmp_path / "saved").step == run.step
    (tmp_path / "saved/mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds mine\.txt"):
        run.save(tmp_path / "saved", overwrite=True)
    with pytest.raises(ValueError, match="which convert wrote"):
        run.save(resumable(MINI) / "torch/saved")


def test_a_save_that_fails_leaves_what_was_there(resumable, tmp_path, monkeypatch):
    run = torch_resume(resumable(MINI))
    run.save(tmp_path / "saved")
    before = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    run.train_step(steps_of(MINI).batch(1))

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("models_torch.training.run.write_training", fail)
    with pytest.raises(ValueError, match="No space left"):
        run.save(tmp_path / "saved", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_parts_of_a_batch_give_the_mean_of_their_gradients(framework, resumable):
    """As the original's replicas do, each with a denominator of its own: one after the other, or in one batch."""
    steps = steps_of(MINI)
    batches = [steps.batch(1), steps.batch(2)]
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    accumulated = resume(framework)(resumable(MINI), loss_style="original")
    together = resume(framework)(resumable(MINI), loss_style="original", replicas=2)
    counts = [int((batch["masked_lm_weights"]).sum()) for batch in batches]
    assert counts[0] != counts[1]
    losses = float(accumulated.train_step(batches)), float(together.train_step(joined))
    assert losses[0] == pytest.approx(losses[1], abs=2e-6)
    one, two = named(accumulated), named(together)
    assert worst(one, two, [key for key in one if KEY_BIAS not in key])[0] < LIMIT


@pytest.mark.slow  # compiles, and Orbax takes its time
def test_orbax_saves_the_state_of_a_run(resumable, tmp_path):
    import orbax.checkpoint as ocp

    steps = steps_of(MINI)
    run, other = (flax_resume(resumable(MINI), loss_style="original") for _ in range(2))
    run.train_step(steps.batch(1))
    with ocp.StandardCheckpointer() as saver:
        saver.save(tmp_path / "state", run.state)
    with ocp.StandardCheckpointer() as saver:
        other.state = saver.restore(tmp_path / "state", other.state)
    assert other.step == run.step == 11
    assert float(run.train_step(steps.batch(2))) == float(other.train_step(steps.batch(2)))
    before, after = named(run), named(other)
    for key, x in before.items():
        np.testing.assert_array_equal(x, after[key])


def test_another_heads_state_is_refused(resumable):
    with pytest.raises(ValueError, match="sequence-classification"):
        torch_resume(resumable(MINI), head="sequence-classification")
    with pytest.raises(ValueError, match="unknown head"):
        torch_resume(resumable(MINI), head="nothing")
    assert torch_resume(resumable(MINI), head="masked-lm").step == 10


def test_a_saved_run_is_converted_whole(resumable, tmp_path):
    """Nothing is passed over in it, and a file of that name which is no state is somebody's own."""
    torch_resume(resumable(MINI)).save(tmp_path / "saved")
    report = convert(tmp_path / "saved", tmp_path / "out", Settings(to=("torch",), training=Asked()))
    assert report.plan.passed_over == ()
    (tmp_path / "saved/training.json").write_text('{"epochs": 3}')
    with pytest.raises(ValueError, match="holds no optimizer's slots"):
        convert(tmp_path / "saved", tmp_path / "other", Settings(to=("torch",), training=Asked()))


def test_a_model_without_a_state_says_how_to_get_one(tmp_path):
    convert(steps_of(MINI).checkpoint, tmp_path / "out")
    with pytest.raises(ValueError, match="no training state: convert the checkpoint with --optimizer"):
        torch_resume(tmp_path / "out")
    with pytest.raises(ValueError, match="there is no model in it"):
        torch_resume(tmp_path / "nowhere")


@pytest.mark.parametrize(("options", "message"), [
    ({"loss_style": "theirs"}, "loss_style is 'theirs'"),
    ({"replicas": 2}, "replicas is 2"),
    ({"replicas": 0, "loss_style": "original"}, "replicas is 0"),
])  # fmt: skip
def test_options_that_there_are_not(options, message, resumable):
    with pytest.raises(ValueError, match=message):
        torch_resume(resumable(MINI), **options)


def test_replicas_must_divide_the_batch(resumable):
    run = torch_resume(resumable(MINI), loss_style="original", replicas=2)
    with pytest.raises(ValueError, match="3 texts, which replicas=2 does not divide"):
        run.train_step(steps_of(MINI).batch(1))


def test_a_batch_without_labels_is_refused(resumable):
    run = torch_resume(resumable(MINI))
    with pytest.raises(ValueError, match="no labels for pretraining"):
        run.train_step({"input_ids": steps_of(MINI).batch(1)["input_ids"]})
