"""Objects of Kubernetes: a Deployment and a Service for each model, with its claim or autoscaler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable import Value
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.quoting import comment, doubled_dollars, yaml_text
from llama_runner.generate.workload import PORT, ROOT, UID, Workload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FILE_NAME = "llama-runner.yaml"
METRIC = "llamacpp:requests_processing"
"""The requests that llama-server works on, as its ``--metrics`` has them."""
CREDENTIALS = "llama-runner-remote-store"
"""The Secret with the environment variables for the remote store; it may be missing."""
_STARTS_S = 1200
"""How long loading may take; a download comes before."""
_PER_POD = "2"
"""Requests at once for each pod that the autoscaler aims at."""


class Cluster(Value):
    """What the objects ask for."""

    image: str
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    storage: int = 50 << 30
    """Bytes of the volume of each model."""
    keeps_store: bool = True
    """Whether a claim keeps the store; otherwise each pod fetches what it needs from the remote store."""
    max_replicas: int = 1


def kubernetes(workloads: Sequence[Workload], cluster: Cluster) -> str:
    """Return the objects. Raises ``CannotGenerate`` for a model whose memory is not known."""
    if cluster.max_replicas > 1 and cluster.keeps_store:
        raise CannotGenerate(
            f"{cluster.max_replicas} replicas cannot share one volume",
            hint="--remote-store URL lets each of them fetch what it needs",
        )
    documents = [each for workload in workloads for each in _objects(workload, cluster)]
    return comment(*_head(workloads, cluster)) + yaml_text(documents)


def _head(workloads: Sequence[Workload], cluster: Cluster) -> list[str]:
    lines = ["Made by: llama-runner generate kubernetes", f"Start: kubectl apply -f {FILE_NAME}"]
    for workload in workloads:
        tls = {secret.key: secret for secret in workload.secrets if secret.variable is None}
        for secret in workload.secrets:
            if secret.variable is not None:
                command = f"kubectl create secret generic {secret.name} --from-file={secret.key}=FILE"
                lines.append(f"Before, with a file without a final line end: {command}")
        if tls:
            command = f"kubectl create secret tls {workload.label}-tls --cert=FILE --key=FILE"
            lines.append(f"Before: {command}")
    if not cluster.keeps_store:
        lines.append(
            f"Where the remote store needs credentials: kubectl create secret generic {CREDENTIALS} "
            "--from-env-file=FILE, with AWS_ACCESS_KEY_ID=… and the like"
        )
    return lines


def _objects(workload: Workload, cluster: Cluster) -> Iterator[dict[str, Any]]:
    if cluster.keeps_store:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(cluster.storage)}},
        }
        yield _object("v1", "PersistentVolumeClaim", f"{workload.label}-store", workload, spec)
    yield _object("apps/v1", "Deployment", workload.label, workload, _deployment(workload, cluster))
    ports = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    yield _object("v1", "Service", workload.label, workload, {"selector": _labels(workload), "ports": ports})
    if cluster.max_replicas > 1:
        scaling = _scaling(workload, cluster)
        yield _object("autoscaling/v2", "HorizontalPodAutoscaler", workload.label, workload, scaling)


def _object(version: str, kind: str, name: str, workload: Workload, spec: dict[str, Any]) -> dict[str, Any]:
    about = {"name": name, "labels": _labels(workload), "annotations": {"llama-runner/model": workload.name}}
    return {"apiVersion": version, "kind": kind, "metadata": about, "spec": spec}


def _labels(workload: Workload) -> dict[str, str]:
    return {"app.kubernetes.io/name": "llama-runner", "app.kubernetes.io/instance": workload.label}


def _deployment(workload: Workload, cluster: Cluster) -> dict[str, Any]:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        # the number of replicas is the autoscaler's where there is one
        **({"replicas": 1} if cluster.max_replicas == 1 else {}),
        # two pods cannot have one volume at once
        "strategy": {"type": "Recreate"} if cluster.keeps_store else rolling,
        "selector": {"matchLabels": _labels(workload)},
        "template": {"metadata": {"labels": _labels(workload)}, "spec": _pod(workload, cluster)},
    }


def _pod(workload: Workload, cluster: Cluster) -> dict[str, Any]:
    claim = {"persistentVolumeClaim": {"claimName": f"{workload.label}-store"}}
    store = claim if cluster.keeps_store else {"emptyDir": {"sizeLimit": str(cluster.storage)}}
    volumes: list[dict[str, Any]] = [
        {"name": "store", **store},
        {"name": "tmp", "emptyDir": {}},
    ]
    if any(secret.variable is None for secret in workload.secrets):
        volumes.append({"name": "tls", "secret": {"secretName": f"{workload.label}-tls", "defaultMode": 0o440}})
    scheduling = {"type": "RuntimeDefault"}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": scheduling,
        },
        "initContainers": [_container("prepare", workload, cluster)],
        "containers": [_container("serve", workload, cluster)],
        "volumes": volumes,
    }


def _container(name: str, workload: Workload, cluster: Cluster) -> dict[str, Any]:
    serves = name == "serve"
    variables: list[dict[str, Any]] = [{"name": "LLAMA_RUNNER_ROOT", "value": ROOT}]
    mounts: list[dict[str, Any]] = [
        {"name": "store", "mountPath": ROOT},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the container
    ]
    for secret in workload.secrets:
        if secret.variable is not None and (serves or secret.key != "api-key"):
            reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
            variables.append({"name": secret.variable, "valueFrom": reference})
        elif secret.variable is None and serves:
            mounts.append({"name": "tls", "mountPath": secret.target, "subPath": secret.key, "readOnly": True})
    words = workload.arguments if serves else workload.preparation
    found: dict[str, Any] = {
        "name": name,
        "image": cluster.image,
        # Kubernetes replaces $(NAME) in arguments
        "args": doubled_dollars(list(words)),
        "env": variables,
    }
    if not cluster.keeps_store:
        found["envFrom"] = [{"secretRef": {"name": CREDENTIALS, "optional": True}}]
    found |= {
        "resources": _resources(workload, cluster, gpus=cluster.gpus if serves else 0),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if serves:
        found |= {"ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}], **_probes(workload)}
    return found


def _probes(workload: Workload) -> dict[str, Any]:
    get = {"path": workload.health_path, "port": "http", "scheme": "HTTPS" if workload.is_encrypted else "HTTP"}
    return {
        "startupProbe": {"httpGet": get, "periodSeconds": 5, "failureThreshold": _STARTS_S // 5},
        "readinessProbe": {"httpGet": get, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {"httpGet": get, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _resources(workload: Workload, cluster: Cluster, *, gpus: int) -> dict[str, Any]:
    need = workload.memory
    if need is None:
        raise CannotGenerate(
            f"the memory that {workload.name!r} needs is not known here",
            model=workload.name,
            hint=f"prepare it here and limit its --cache-ram, or pass --memory {workload.name}=SIZE",
        )
    limits: dict[str, Any] = {"memory": _mib(need.limit)}
    if gpus:
        limits[cluster.gpu_resource] = gpus
    return {"requests": {"cpu": str(workload.threads or 1), "memory": _mib(need.request)}, "limits": limits}


def _mib(count: int) -> str:
    return f"{-(-count >> 20)}Mi"


def _scaling(workload: Workload, cluster: Cluster) -> dict[str, Any]:
    metric = {"metric": {"name": METRIC}, "target": {"type": "AverageValue", "averageValue": _PER_POD}}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.label},
        "minReplicas": 1,
        "maxReplicas": cluster.max_replicas,
        "metrics": [{"type": "Pods", "pods": metric}],
    }
