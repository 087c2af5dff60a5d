"""The files around tensorflow_model_server in; what it, Docker and Kubernetes make of them out."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from batching_proto import BatchingParameters, MonitoringConfig
from google.protobuf import text_format

SERVING = Path(__file__).resolve().parents[2] / "serving"
KUBERNETES = SERVING / "kubernetes"


def manifest(name):
    return yaml.safe_load((SERVING / name).read_text())


def test_the_model_config_is_what_the_server_reads():
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    text = (SERVING / "models.config").read_text()
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == (
        "groupvit",
        "/models/groupvit",
        "tensorflow",
    )


def test_our_server_reads_the_same_model_and_monitoring_configs():
    from tf_groupvit.server.config_files import prometheus_path, read_models

    (model,) = read_models(SERVING / "models.config")
    assert model.name == "groupvit"
    assert prometheus_path(str(SERVING / "monitoring.config")) == "/monitoring/prometheus/metrics"


def test_batching_and_monitoring_configs_are_their_protos():
    batching = text_format.Parse((SERVING / "batching.config").read_text(), BatchingParameters())
    assert batching.max_batch_size.value == 32 and batching.batch_timeout_micros.value == 5000
    monitoring = text_format.Parse((SERVING / "monitoring.config").read_text(), MonitoringConfig())
    assert monitoring.prometheus_config.enable and monitoring.prometheus_config.path.startswith("/")


def test_the_image_holds_the_configs_and_starts_the_server_with_them():
    lines = (SERVING / "Dockerfile").read_text()
    for name in re.findall(r"serving/(\w+\.config)", lines):
        assert (SERVING / name).exists()
    used = set(re.findall(r"/config/(\w+\.config)", lines))
    copied = set(re.findall(r"serving/(\w+\.config)", lines))
    assert used == copied == {"models.config", "batching.config", "monitoring.config"}
    assert "tensorflow_model_server" in lines and "COPY models/groupvit /models/groupvit" in lines


def test_compose_mounts_every_file_that_the_server_is_told_of():
    service = manifest("docker-compose.yml")["services"]["groupvit"]
    mounted = {volume.split(":")[-2] for volume in service["volumes"]}
    for flag in service["command"]:
        if "/config/" in flag:
            assert flag.split("=")[1] in mounted
    assert "/models/groupvit" in mounted
    for volume in service["volumes"]:
        if volume.startswith("./"):
            assert (SERVING / volume.split(":")[0]).exists()


@pytest.fixture
def container():
    return manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"][0]


def test_a_pod_is_ready_when_the_state_says_available(container):
    command = container["readinessProbe"]["exec"]["command"]
    assert command[:2] == ["bash", "-c"]
    assert "/v1/models/groupvit " in command[2] and '"state": "AVAILABLE"' in command[2]


def test_service_deployment_and_autoscaler_name_each_other():
    deployment, service = (
        manifest("kubernetes/deployment.yaml"),
        manifest("kubernetes/service.yaml"),
    )
    scaler = manifest("kubernetes/autoscaler.yaml")
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert (
        deployment["spec"]["selector"]["matchLabels"].items()
        <= template["metadata"]["labels"].items()
    )
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == (deployment["kind"], deployment["metadata"]["name"])
    ports = {
        port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]
    }
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    annotated = template["metadata"]["annotations"]["prometheus.io/path"]
    assert annotated in (SERVING / "monitoring.config").read_text()


# The fields of the published schemas that are used, and of which kind; a misspelt one would be
# ignored by a cluster.
FIELDS = {
    "deployment.yaml": ("apps/v1", "Deployment", {"selector", "strategy", "template"}),
    "service.yaml": ("v1", "Service", {"selector", "ports"}),
    "autoscaler.yaml": (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        {"scaleTargetRef", "minReplicas", "maxReplicas", "metrics", "behavior"},
    ),
}
CONTAINER = """name image imagePullPolicy ports startupProbe readinessProbe livenessProbe lifecycle resources""".split()


@pytest.mark.parametrize("name", FIELDS)
def test_manifests_have_the_fields_of_their_schema(name):
    version, kind, fields = FIELDS[name]
    found = manifest(f"kubernetes/{name}")
    assert (found["apiVersion"], found["kind"]) == (version, kind)
    assert set(found["spec"]) == fields and found["metadata"]["name"] == "groupvit"


def test_requests_are_within_limits_and_alike_wherever_they_stand(container):
    assert set(container) == set(CONTAINER)
    resources = container["resources"]
    assert resources == manifest("kserve.yaml")["spec"]["predictor"]["model"]["resources"]
    number = {
        key: int(value.removesuffix("Mi"))
        for key, value in (
            ("requests", resources["requests"]["memory"]),
            ("limits", resources["limits"]["memory"]),
        )
    }
    assert 0 < number["requests"] <= number["limits"]


def test_the_inference_service_is_of_kserve_and_of_tensorflow():
    found = manifest("kserve.yaml")
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert found["spec"]["predictor"]["model"]["modelFormat"]["name"] == "tensorflow"


@pytest.fixture
def job():
    return manifest("ray/rayjob.yaml")


@pytest.fixture
def groups(job):
    """The container of the head, and that of the workers, of the cluster that the job starts."""
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [pod["template"]["spec"]["containers"] for pod in pods]


def test_the_job_is_of_kuberay_and_ends_with_its_cluster(job):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert job["spec"].keys() == {
        "entrypoint",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    }
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (workers,) = cluster["workerGroupSpecs"]
    fields = "groupName replicas minReplicas maxReplicas rayStartParams template"
    assert workers.keys() == set(fields.split())


def test_the_job_runs_a_command_that_there_is_with_a_worker_a_pod(job):
    from tf_groupvit.cli.annotate import command

    program, name, *line = shlex.split(job["spec"]["entrypoint"])
    chosen = command.make_context(name, line).params
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert (program, name, chosen["engine"]) == ("tf-groupvit", "annotate", "ray")
    assert chosen["workers"] == workers["replicas"] == workers["minReplicas"]
    (head,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert chosen["model"].startswith(head["volumeMounts"][0]["mountPath"])


def test_pods_of_the_job_have_one_image_and_requests_within_limits(groups):
    assert len({container["image"] for (container,) in groups}) == 1
    for (container,) in groups:
        resources = container["resources"]
        asked, most = (
            int(resources[kind]["memory"].removesuffix("Mi")) for kind in ("requests", "limits")
        )
        assert 0 < asked <= most
