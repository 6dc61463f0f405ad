"""Flags: one for each option, what they default to, and what a mistaken one gets."""

import dataclasses

import pytest

from tf_pruneinit import __version__, evaluate
from tf_pruneinit.config import execution, flags, registry
from tf_pruneinit.config import experiment as config
from tf_pruneinit.config.defaults import recipe
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.errors import HelpRequested, UsageError

# Of every flag a value that is not its default: as it is typed, and as it is then found in the dataclasses.
GIVEN = {
    "dataset": ("mnist", "mnist"),
    "model": ("convnet", "convnet"),
    "seed": ("7", 7),
    "method": ("grasp", "grasp"),
    "sparsity": ("0.25", 0.25),
    "iterations": ("3", 3),
    "scope": ("layerwise", "layerwise"),
    "min_remaining": ("2", 2),
    "exclude": ("fc3,head/*", ("fc3", "head/*")),
    "examples_per_class": ("5", 5),
    "score_batch_size": ("64", 64),
    "accumulate": ("gradients", "gradients"),
    "score_precision": ("float64", "float64"),
    "target": ("effective", "effective"),
    "temperature": ("50", 50.0),
    "inner_steps": ("1", 1),
    "inner_rate": ("0.5", 0.5),
    "meta_gradients": ("full", "full"),
    "grasp_gradient": ("all", "all"),
    "search_rate": ("0.5", 0.5),
    "batch_norm_warmup": ("true", True),
    "ablation": ("shuffle", "shuffle"),
    "prune_at": ("100", "100"),
    "masks": ("masks.npz", "masks.npz"),
    "masks_of": ("run", "run"),
    "densities": ("snip", "snip"),
    "rewind_to": ("3ep", "3ep"),
    "rounds": ("3", 3),
    "restart": ("false", False),
    "prune_first": ("false", False),
    "prune_last": ("false", False),
    "update_every": ("7", 7),
    "update_from": ("2ep", "2ep"),
    "update_until": ("5ep", "5ep"),
    "drop_fraction": ("0.2", 0.2),
    "initializer": ("normal", "normal"),
    "initializer_deviation": ("0.1", 0.1),
    "batch_norm_scale": ("ones", "ones"),
    "normalization": ("data", "data"),
    "image_size": ("32", 32),
    "epochs": ("9", 9),
    "train_steps": ("11", 11),
    "batch_size": ("32", 32),
    "learning_rate": ("0.5", 0.5),
    "learning_rate_drops": ("1,2.5", (1.0, 2.5)),
    "momentum": ("0.5", 0.5),
    "weight_decay": ("0.01", 0.01),
    "warmup_epochs": ("2", 2.0),
    "sign_in_every": ("3", 3),
    "schedule": ("cosine", "cosine"),
    "optimizer": ("adamw", "adamw"),
    "nesterov": ("true", True),
    "ema": ("0.9", 0.9),
    "label_smoothing": ("0.1", 0.1),
    "validation": ("0.2", 0.2),
    "precision": ("mixed_float16", "mixed_float16"),
    "augmentation": ("resized_crop", "resized_crop"),
    "devices": ("2", 2),
    "jit_compile": ("true", "true"),
    "sync_batch_norm": ("true", True),
    "deterministic": ("false", False),
    "compact": ("true", "true"),
    "checkpoint_every": ("500", "500"),
    "grace_seconds": ("120", 120.0),
    "require_alive": ("true", True),
    "snapshot_steps": ("100,0", (0, 100)),
    "export": ("litert,compressed", ("compressed", "litert")),
    "workdir": ("elsewhere", "elsewhere"),
    "data_dir": ("data", "data"),
    "overwrite": ("true", True),
    "dry_run": ("true", True),
}

NEEDED = {
    "inner_steps": ["--method=prospr"],
    "inner_rate": ["--method=prospr"],
    "meta_gradients": ["--method=prospr"],
    "grasp_gradient": ["--method=grasp", "--iterations=3"],
    "search_rate": ["--method=gem_miner"],
    **{name: ["--method=rigl"] for name in ("update_every", "update_from", "update_until", "drop_fraction")},
    "rewind_to": ["--prune_at=end"],
    "restart": ["--prune_at=100"],
    "nesterov": ["--momentum=0.9"],
    "rounds": ["--prune_at=end"],
    "initializer_deviation": ["--initializer=normal"],
    "image_size": ["--dataset=tfds:beans", "--model=convnet"],
}


def parse(*arguments: str) -> dict:
    return flags.parse(["main", *arguments], "Purpose.", flags.experiment_groups())


def experiment(*arguments: str) -> tuple[Config, Execution]:
    return flags.experiment(parse(*arguments))


def options_of(*parts) -> dict:
    """All options, flat, by the name of their flag."""
    fields = [(part, field) for part in parts for field in dataclasses.fields(part) if "help" in field.metadata]
    return {field.metadata.get("flag", field.name): getattr(part, field.name) for part, field in fields}


def test_every_field_has_a_flag_and_every_flag_a_field():
    defined = [name for group in flags.experiment_groups().values() for name in group]
    assert sorted(defined) == sorted(options_of(Config(), Prune(), Train(), Execution())) == sorted(GIVEN)
    assert list(flags.define(evaluate.Options)) == [field.name for field in dataclasses.fields(evaluate.Options)]


# Of masks the method and the sparsity follow, too.
@pytest.mark.parametrize("flag", sorted({*GIVEN} - {"masks", "masks_of"}))
def test_flag_sets_its_field_and_no_other(flag):
    typed, value = GIVEN[flag]
    # Grasp reads every option of pruning; and some flags mean something only together with others.
    given = ["--method=grasp", "--sparsity=0.9", *NEEDED.get(flag, ())]
    before, after = experiment(*given), experiment(*given, f"--{flag}={typed}")
    before, after = (options_of(c, c.prune, c.train, e) for c, e in (before, after))
    assert after[flag] == value
    also = {
        "train_steps": {"epochs"},
        "optimizer": {"learning_rate", "weight_decay", "momentum"},
        "dataset": set(options_of(Train())),
        "model": set(options_of(Train())),
    }.get(flag, set())
    assert {name for name in after if after[name] != before[name]} - also == {flag} - {"method"}


def test_nothing_given_is_snip_on_digits():
    found, execution = experiment()
    assert found == Config("digits", "lenet_300_100", 0, Prune("snip", 0.9), recipe("digits", "lenet_300_100"))
    assert execution == Execution()


@pytest.mark.parametrize("dataset", registry.DATASETS)
def test_model_and_training_are_those_usual_for_the_dataset(dataset):
    found, _ = experiment(f"--dataset={dataset}")
    assert found.model == registry.DATASETS[dataset].default_model
    assert found.train == recipe(dataset, found.model)


def test_one_flag_of_training_leaves_the_rest_of_the_recipe():
    found, _ = experiment("--dataset=cifar10", "--batch_size=64")
    assert found.train == dataclasses.replace(recipe("cifar10", "resnet20"), batch_size=64)


def test_adamw_has_a_rate_and_a_decay_of_its_own_but_not_where_the_recipe_has():
    one = experiment("--dataset=cifar10", "--optimizer=adamw")[0].train
    assert (one.learning_rate, one.weight_decay, one.epochs) == (1e-3, 1e-2, 160)
    assert experiment("--dataset=cifar10", "--optimizer=adamw", "--learning_rate=0.1")[0].train.learning_rate == 0.1
    transformer = experiment("--dataset=cifar10", "--model=vit_tiny")[0].train
    assert (transformer.optimizer, transformer.weight_decay) == ("adamw", 0.05)
    assert experiment("--dataset=cifar10", "--model=vit_tiny", "--optimizer=sgd")[0].train.learning_rate == 0.1


def test_steps_take_the_place_of_epochs():
    found, _ = experiment("--train_steps=5")
    assert (found.train.epochs, found.train.steps) == (None, 5)
    with pytest.raises(UsageError, match="one of epochs and train_steps must be given, and not both"):
        experiment("--train_steps=5", "--epochs=1")


def test_length_on_the_command_line_takes_the_place_of_the_other_one_in_a_file(tmp_path):
    for written, typed, expected in (("epochs=3", "train_steps=5", (None, 5)), ("train_steps=5", "epochs=3", (3, None))):
        (tmp_path / "file").write_text(f"--{written}\n")
        train = experiment(f"--flagfile={tmp_path}/file", f"--{typed}")[0].train
        assert (train.epochs, train.steps) == expected
    (tmp_path / "file").write_text("--epochs=3\n--train_steps=5\n")
    with pytest.raises(UsageError, match="one of epochs and train_steps must be given, and not both"):
        experiment(f"--flagfile={tmp_path}/file")


def test_rounds_remove_a_fifth_each_unless_a_sparsity_is_given():
    after = ("--method=magnitude", "--prune_at=end")
    assert experiment(*after, "--rounds=3")[0].sparsity == 0.488
    assert experiment(*after, "--rounds=1")[0].sparsity == experiment(*after)[0].sparsity == 0.9
    assert experiment(*after, "--rounds=3", "--sparsity=0.8")[0].sparsity == 0.8


def test_dense_prunes_nothing():
    assert experiment("--method=dense")[0] == Config(train=recipe("digits", "lenet_300_100"))


@pytest.mark.parametrize("flag", sorted(set(options_of(Prune())) - {"method"}))
def test_dense_takes_no_option_of_pruning(flag):
    with pytest.raises(UsageError, match=f"method=dense prunes nothing and takes no {flag}; got {flag}="):
        experiment("--method=dense", f"--{flag}={GIVEN[flag][0]}")


def test_drops_can_be_none():
    assert experiment("--dataset=cifar10", "--learning_rate_drops=")[0].train.learning_rate_drops == ()


@pytest.mark.parametrize(
    "typed, names",
    [
        ("fc3", ("fc3",)),
        ("a,b", ("a", "b")),
        ("a, b", ("a", "b")),
        ("stage*_conv?,head/[ab]", ("stage*_conv?", "head/[ab]")),
        ("1,2.5", ("1", "2.5")),
        ("", ()),
    ],
)
def test_layers_left_out_are_names_and_patterns_separated_by_commas(typed, names):
    assert experiment(f"--exclude={typed}")[0].prune.exclude == names


@pytest.mark.parametrize("typed", [",", "a,", ",a", "a,,b"])
def test_name_of_a_layer_left_out_is_not_empty(typed):
    with pytest.raises(UsageError, match=r"^exclude must be names of layers; got"):
        experiment(f"--exclude={typed}")


def test_keras_application_is_a_model_with_the_usual_training():
    found, _ = experiment("--dataset=cifar10", "--model=keras:ResNet50")
    assert (found.model, found.train) == ("keras:ResNet50", Train())
    assert ":" not in found.address


@pytest.mark.parametrize("model", ["keras:", "keras", "ResNet50", "keras:a:b"])
def test_model_that_is_no_keras_application_is_refused(model):
    with pytest.raises(UsageError, match=f"^model must be one of .*, keras:NAME; got '{model}'"):
        experiment(f"--model={model}")


def test_help_says_how_keras_applications_are_named():
    with pytest.raises(HelpRequested) as help_text:
        parse("--help")
    assert "keras:NAME: NAME of keras.applications, as keras:ResNet50" in " ".join(str(help_text.value).split())


def test_last_of_repeated_flags_holds():
    assert experiment("--seed=1", "--seed=2")[0].seed == 2


def test_a_directory_below_home_may_be_written_as_shells_leave_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert experiment("--workdir=~/runs")[1].workdir == "/home/me/runs"


def test_values_may_follow_their_flags():
    assert parse("--seed", "4", "-sparsity", "0.5", "--overwrite") == {"seed": 4, "sparsity": 0.5, "overwrite": True}


def test_only_what_was_given_is_returned():
    assert parse() == {}
    assert parse("--seed=0", "--nooverwrite") == {"seed": 0, "overwrite": False}


def test_flag_file_is_read_with_comments_and_later_flags_win(tmp_path):
    file = tmp_path / "experiment.flags"
    file.write_text("# A claim, the command, the time.\n\n--method=grasp\n--sparsity=0.5\n--seed=3\n")
    assert parse(f"--flagfile={file}", "--sparsity=0.8") == {"method": "grasp", "sparsity": 0.8, "seed": 3}
    assert parse("--sparsity=0.8", f"--flagfile={file}")["sparsity"] == 0.5


def test_what_is_typed_is_known_from_what_a_flag_file_has():
    line = ["sweep", "--flagfile=file", "--grid=seed=0", "-grid", "method=snip", "--grids=1", "--also=grid"]
    assert flags.typed(line, "grid") == ["seed=0", "method=snip"]


def test_flag_files_name_others(tmp_path):
    (tmp_path / "common").write_text("--seed=3\n")
    (tmp_path / "one").write_text(f"--flagfile={tmp_path}/common\n--sparsity=0.5\n")
    assert parse(f"--flagfile={tmp_path}/one") == {"seed": 3, "sparsity": 0.5}


@pytest.mark.parametrize("content", [None, b"--sparsity=0.5 \xe9\n", b"sparsity=0.5\n", b"--nonsense=1\n", b"--epochs=ten\n"])
def test_flag_file_that_is_missing_or_wrong_is_refused(tmp_path, content):
    file = tmp_path / "experiment.flags"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError):
        parse(f"--flagfile={file}")


def test_directory_is_no_flag_file(tmp_path):
    with pytest.raises(UsageError, match=str(tmp_path)):
        parse(f"--flagfile={tmp_path}")


@pytest.mark.parametrize(
    "arguments, received",
    [
        (["--sparsty=0.5"], "sparsty.*Did you mean: sparsity"),
        (["--nosparsity"], "nosparsity"),
        (["--epochs=ten"], "epochs=ten"),
        (["--batch_size=1e3"], "batch_size=1e3"),
        (["--seed=1.5"], "seed=1.5"),
        (["--sparsity=half"], "sparsity=half"),
        (["--sparsity=0,5"], "sparsity=0,5"),
        (["--sparsity=95%"], "sparsity=95%"),
        (["--sparsity="], "sparsity="),
        (["--sparsity"], "sparsity"),
        (["--overwrite=perhaps"], "overwrite=perhaps"),
        (["--min_remaining=few"], "min_remaining=few"),
        (["--score_batch_size=1.5"], "score_batch_size=1.5"),
        (["--score_precison=float64"], "score_precison.*Did you mean: score_precision"),
        (["snip"], "snip"),
        (["--seed=1", "--", "--sparsity=0.5"], "--sparsity=0.5"),
    ],
)
def test_mistyped_flag_is_refused_on_one_line(arguments, received):
    with pytest.raises(UsageError, match=received) as error:
        parse(*arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("drops", [",", "80,", "80;120", "eighty", "120,80", "0", "nan", "inf"])
def test_drops_that_are_no_epochs_in_order_are_refused(drops):
    with pytest.raises(UsageError, match="learning_rate_drops must be"):
        experiment(f"--learning_rate_drops={drops}")


@pytest.mark.parametrize(
    "flag, known",
    [("method", registry.of_runs()), ("dataset", registry.DATASETS), ("model", registry.MODELS)],
)
def test_unknown_name_lists_the_known_ones(flag, known):
    with pytest.raises(UsageError, match=f"^{flag} must be one of.* got 'nonsense'") as error:
        experiment(f"--{flag}=nonsense")
    assert all(name in str(error.value) for name in known)
    assert ("dense" in str(error.value)) == (flag == "method")


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_help_shows_every_flag_and_every_row(flag):
    with pytest.raises(HelpRequested) as help_text:
        parse(flag, "--sparsity=95")
    text = str(help_text.value)
    assert text.startswith("Purpose.")
    assert all(f"\n  --{name} " in text for name in [*GIVEN, "flagfile", "help", "version"])
    assert all(f" {name}: " in text for name in [*registry.of_runs(), *registry.DATASETS, *registry.MODELS])
    choices = [*registry.SCOPES, *config.PRECISIONS, *execution.JIT_COMPILE, *config.ACCUMULATE, *config.SCORE_PRECISIONS]
    choices += [flags.DENSE, registry.KERAS]
    assert all(choice in text for choice in choices)


def test_help_fits_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(HelpRequested) as help_text:
        parse("--help")
    assert [line for line in str(help_text.value).splitlines() if len(line) > 80] == []


def test_version_is_the_packages():
    with pytest.raises(HelpRequested, match=f"^tf_pruneinit {__version__}$"):
        parse("--version")


@pytest.mark.parametrize(
    "flag, rule",
    [
        ("epochs=ten", "an integer"),
        ("sparsity=95%", "a number"),
        ("dry_run=maybe", "true or false"),
        ("seed=1.5", "an integer"),
    ],
)
def test_a_value_of_the_wrong_type_is_answered_in_plain_words(flag, rule):
    with pytest.raises(UsageError, match=f"^flag --{flag}; it must be {rule}$"):
        flags.parse(["main", f"--{flag}"], "", flags.experiment_groups())


def test_a_flag_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"^flagfile cannot be read: No such file or directory: 'nowhere'$"):
        flags.parse(["main", "--flagfile=nowhere"], "", flags.experiment_groups())
