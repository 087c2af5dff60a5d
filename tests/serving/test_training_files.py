"""The manifests of training in; the processes that their shell lines make of them out."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tf_groupvit.training.devices import Cluster, read_cluster

TRAINING = Path(__file__).resolve().parents[2] / "serving" / "training"


def objects(name):
    return list(yaml.safe_load_all((TRAINING / name).read_text()))


def job():
    _, found = objects("job.yaml")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    return container, found["spec"]["completions"]


def train_job():
    _, found = objects("trainjob.yaml")
    return found["spec"]["trainer"], found["spec"]["trainer"]["numNodes"]


def tf_config(worker, index, folder, **changes):
    """What a worker's shell lines give to the command, for which another stands in here."""
    stand_in = folder / "tf-groupvit"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n%s" "$TF_CONFIG" "$*"\n')
    stand_in.chmod(0o755)
    environment = {one["name"]: one["value"] for one in worker["env"]}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)}
    environment |= changes
    lines = [*worker["command"], *worker["args"]]
    done = subprocess.run(lines, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split("\n")


BOTH = pytest.mark.parametrize(
    ("read", "host"), [(job, "groupvit-training"), (train_job, "groupvit-training-node-0")]
)


@BOTH
def test_each_worker_hears_of_all_by_the_names_that_pods_have(read, host, tmp_path):
    worker, count = read()
    assert worker["env"] == [{"name": "WORKERS", "value": str(count)}]
    for index in range(count):
        config, words = tf_config(worker, index, tmp_path)
        assert read_cluster(config) == Cluster(index, count)
        hosts = [f"{host}-{i}.groupvit-training:2222" for i in range(count)]
        assert json.loads(config)["cluster"] == {"worker": hosts}
        assert words.startswith("train --data s3://")


@BOTH
@pytest.mark.parametrize("count", [1, 12])
def test_another_number_of_workers_makes_as_many_hosts(read, host, count, tmp_path):
    config, _ = tf_config(read()[0], count - 1, tmp_path, WORKERS=str(count))
    assert read_cluster(config) == Cluster(count - 1, count)
    hosts = [f"{host}-{i}.groupvit-training:2222" for i in range(count)]
    assert json.loads(config)["cluster"] == {"worker": hosts}


def test_both_ask_for_the_same_resources_and_have_room_above_what_they_request():
    (worker, _), (node, _) = job(), train_job()
    asked = worker["resources"]
    assert node["resourcesPerNode"] == asked
    least, most = (int(asked[kind]["memory"].removesuffix("Gi")) for kind in ("requests", "limits"))
    assert least <= most and int(asked["requests"]["cpu"]) > 0


def test_the_service_names_the_pods_of_the_job_before_they_are_ready():
    service, found = objects("job.yaml")
    name = found["metadata"]["name"]
    assert (
        service["spec"]["selector"] == {"job-name": name} and service["spec"]["clusterIP"] == "None"
    )
    assert service["spec"]["publishNotReadyAddresses"] is True
    pod = found["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"] == name
    (port,) = service["spec"]["ports"]
    assert [one["containerPort"] for one in pod["containers"][0]["ports"]] == [port["port"]]
    assert found["spec"]["completionMode"] == "Indexed" and pod["restartPolicy"] == "OnFailure"
    assert found["spec"]["completions"] == found["spec"]["parallelism"]


def test_the_train_job_runs_in_its_runtime():
    runtime, found = objects("trainjob.yaml")
    assert {one["apiVersion"] for one in (runtime, found)} == {"trainer.kubeflow.org/v1alpha1"}
    assert (runtime["kind"], found["kind"]) == ("TrainingRuntime", "TrainJob")
    assert found["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert found["spec"]["runtimeRef"]["kind"] == runtime["kind"]
    assert runtime["spec"]["mlPolicy"]["numNodes"] == found["spec"]["trainer"]["numNodes"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["name"] == "node"  # a part of the pods' names
