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


# Names of fields in the published schemas; a misspelt one would be ignored by a cluster.
FIELDS = """
apiGroup apiVersion appProtocol args averageUtilization backoffLimit behavior claimName clusterIP
command completionMode completions containerPort containers entrypoint env exec failureThreshold
groupName headGroupSpec image imagePullPolicy kind lifecycle livenessProbe maxReplicas maxSurge
maxUnavailable metadata metrics minReplicas mlPolicy model modelFormat mountPath name numNodes
parallelism periodSeconds persistentVolumeClaim port ports preStop predictor protocolVersion
publishNotReadyAddresses rayClusterSpec rayVersion readOnly readinessProbe replicas replicatedJobs
resource resources resourcesPerNode restartPolicy rollingUpdate runtimeRef runtimeVersion scaleDown
scaleTargetRef shutdownAfterJobFinishes spec stabilizationWindowSeconds startupProbe storageUri
strategy subdomain target targetPort tcpSocket template terminationGracePeriodSeconds timeoutSeconds
trainer ttlSecondsAfterFinished type value version volumeMounts volumes workerGroupSpecs
""".split()
# Fields that hold names of one's own.
OWN = "annotations labels limits matchLabels nodeSelector rayStartParams requests selector".split()
MANIFESTS = sorted(path.relative_to(SERVING) for path in SERVING.rglob("*.yaml"))


def fields_of(node):
    """The names of all fields in a manifest."""
    if isinstance(node, list):
        yield from (name for one in node for name in fields_of(one))
    elif isinstance(node, dict):
        for name, value in node.items():
            if name not in OWN:
                yield name
                yield from fields_of(value)


@pytest.mark.parametrize("path", MANIFESTS, ids=str)
def test_the_fields_of_manifests_are_those_of_their_schemas(path):
    for found in yaml.safe_load_all((SERVING / path).read_text()):
        assert {"apiVersion", "kind", "metadata", "spec"} == found.keys()
        assert set(fields_of(found)) <= set(FIELDS)


@pytest.mark.parametrize(
    ("name", "version", "kind"),
    [
        ("kubernetes/deployment.yaml", "apps/v1", "Deployment"),
        ("kubernetes/service.yaml", "v1", "Service"),
        ("kubernetes/autoscaler.yaml", "autoscaling/v2", "HorizontalPodAutoscaler"),
        ("kserve.yaml", "serving.kserve.io/v1beta1", "InferenceService"),
        ("ray/rayjob.yaml", "ray.io/v1", "RayJob"),
    ],
)
def test_manifests_are_of_their_kind(name, version, kind):
    assert (manifest(name)["apiVersion"], manifest(name)["kind"]) == (version, kind)


def test_requests_are_within_limits_and_alike_wherever_they_stand(container):
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


def test_the_inference_service_is_of_tensorflow():
    model = manifest("kserve.yaml")["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == "tensorflow"


@pytest.fixture
def job():
    return manifest("ray/rayjob.yaml")


@pytest.fixture
def groups(job):
    """The container of the head, and that of the workers, of the cluster that the job starts."""
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [pod["template"]["spec"]["containers"] for pod in pods]


def test_the_job_ends_with_its_cluster_whose_head_segments_nothing(job):
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0"}


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
