import dataclasses
import types

import pytest

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments.settings import Settings

NOW = Settings(devices=2, workers=1, xla=False, sync_batch_norm=False, dataset_sha256="ab", compact=True)


def workers(count):
    return types.SimpleNamespace(count=count)


def test_what_was_saved_is_read_whatever_the_settings_are_now():
    saved = dataclasses.replace(NOW, devices=1, xla=True, dataset_sha256="cd", compact=False)
    assert NOW.before(saved.to_json()) == saved


def test_fields_that_an_earlier_version_did_not_save_are_as_now_but_nothing_was_compact():
    assert NOW.before({"devices": 1}) == dataclasses.replace(NOW, devices=1, compact=False)


def test_a_result_has_replicas_of_all_workers():
    result = {"replicas": 6, "workers": 3, "xla": True, "sync_batch_norm": True, "test_accuracy": 0.5}
    expected = Settings(devices=2, workers=3, xla=True, sync_batch_norm=True, dataset_sha256="ab", compact=False)
    assert NOW.before_result(result) == expected


@pytest.mark.parametrize("devices, count, sync", [(1, 1, False), (2, 1, True), (1, 2, True)])
def test_one_replica_has_nothing_to_synchronize(devices, count, sync):
    execution = Execution(devices=devices, sync_batch_norm=True, jit_compile="false")
    assert Settings.of(execution, workers(count), "ab") == Settings(devices, count, False, sync, "ab")


def test_xla_is_refused_with_synchronized_batch_norm_of_several_workers():
    execution = Execution(sync_batch_norm=True, jit_compile="true")
    with pytest.raises(UsageError, match=r"needs jit_compile=false.* got jit_compile=true"):
        Settings.of(execution, workers(2), "ab")
    assert Settings.of(execution, workers(1), "ab").xla
