"""Objects of Kubernetes: a Deployment and a Service for each model, with its claim or autoscaler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_runner.core.immutable_values import Value
from llama_runner.generate.container import PORT, ROOT, UID, Workload
from llama_runner.generate.errors import CannotGenerate
from llama_runner.generate.quoting import comment, doubled_dollars, yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from llama_runner.generate.container_mounts import Secret

FILE_NAME = "llama-runner.yaml"
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
        for secret in workload.secrets:
            if not secret.key.startswith("tls."):
                how = ", with a file without a final line end" if secret.variable else ""
                command = f"kubectl create secret generic {secret.name} --from-file={secret.key}=FILE"
                lines.append(f"Before{how}: {command}")
        if any(secret.key.startswith("tls.") for secret in workload.secrets):
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
    if workload.texts:
        data = {_text_key(at): text for at, text in enumerate(workload.texts.values())}
        about = _object("v1", "ConfigMap", f"{workload.label}-config", workload, {})
        del about["spec"]
        yield {**about, "data": data}
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
    if any(secret.key.startswith("tls.") for secret in workload.secrets):
        volumes.append({"name": "tls", "secret": {"secretName": f"{workload.label}-tls", "defaultMode": 0o440}})
    for secret in (*_copied(workload), *_read(workload)):
        volumes += [{"name": secret.key, "secret": {"secretName": secret.name, "defaultMode": 0o440}}]
    if workload.private:
        volumes.append({"name": "private", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    if workload.texts:
        volumes.append({"name": "config", "configMap": {"name": f"{workload.label}-config"}})
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
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [*_private(workload, cluster), *_preparations(workload, cluster)],
        "containers": [_container("serve", workload.arguments, workload, cluster)],
        "volumes": volumes,
    }


def _preparations(workload: Workload, cluster: Cluster) -> Iterator[dict[str, Any]]:
    for number, words in enumerate(workload.preparations):
        yield _container(f"prepare-{number}" if number else "prepare", words, workload, cluster)


def _private(workload: Workload, cluster: Cluster) -> Iterator[dict[str, Any]]:
    """Yield the container that copies secrets: a group can read the files of a Secret, which llama-runner refuses."""
    if not workload.private:
        return
    copies = [f"install -m 400 {source} {target}" for target, source in workload.private.items()]
    found = _container("secrets", (), workload, cluster)
    found |= {"command": ["sh", "-c", " && ".join(copies)]}
    del found["args"]
    found["volumeMounts"] += map(_mount_of, _copied(workload))
    yield found


def _mount_of(secret: Secret) -> dict[str, Any]:
    return {"name": secret.key, "mountPath": secret.target, "subPath": secret.key, "readOnly": True}


def _read(workload: Workload) -> list[Secret]:
    """Return the secrets that are read from files of a Secret, without certificates."""
    copied = _copied(workload)
    others = [secret for secret in workload.secrets if secret.variable is None and secret not in copied]
    return [secret for secret in others if not secret.key.startswith("tls.")]


def _copied(workload: Workload) -> list[Secret]:
    return [secret for secret in workload.secrets if secret.target in workload.private.values()]


def _text_key(number: int) -> str:
    return f"file-{number}.toml"


def _container(name: str, words: Sequence[str], workload: Workload, cluster: Cluster) -> dict[str, Any]:
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
        elif secret.key.startswith("tls.") and serves:
            mounts.append({"name": "tls", "mountPath": secret.target, "subPath": secret.key, "readOnly": True})
    mounts += map(_mount_of, _read(workload))
    if workload.private:
        mounts.append({"name": "private", "mountPath": _directory(workload.private)})
    for number, target in enumerate(workload.texts):
        key = _text_key(number)
        mounts.append({"name": "config", "mountPath": target, "subPath": key, "readOnly": True})
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


def _directory(paths: Iterable[str]) -> str:
    return next(iter(paths)).rpartition("/")[0]


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
            hint="prepare it here and limit its --cache-ram, or pass --memory "
            + ("SIZE" if workload.texts else f"{workload.name}=SIZE"),
        )
    limits: dict[str, Any] = {"memory": _mib(need.limit)}
    if gpus:
        limits[cluster.gpu_resource] = gpus
    return {"requests": {"cpu": str(workload.threads or 1), "memory": _mib(need.request)}, "limits": limits}


def _mib(count: int) -> str:
    return f"{-(-count >> 20)}Mi"


def _scaling(workload: Workload, cluster: Cluster) -> dict[str, Any]:
    metric = {"metric": {"name": workload.metric}, "target": {"type": "AverageValue", "averageValue": _PER_POD}}
    return {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.label},
        "minReplicas": 1,
        "maxReplicas": cluster.max_replicas,
        "metrics": [{"type": "Pods", "pods": metric}],
    }
