"""Names that the cluster, the chart and the code agree on."""

GROUP = "quantuner.dev"
VERSION = "v1alpha1"
KIND = "QuantizationTuning"
PLURAL = "quantizationtunings"
API_VERSION = f"{GROUP}/{VERSION}"

LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "quantuner"
LABEL_TUNING = f"{GROUP}/tuning"  # the name of the QuantizationTuning an object belongs to

QUEUE_PREFIX = "kueue.x-k8s.io/"
"""Of a resource's labels, those that say by which queue of Kueue its MPIJob is admitted."""

FORKS_VARIABLE = "QUANTUNER_FORKS"
"""Of a launcher, 1 where every pod has a fork server, of which ranks are forks. A template may set it to 0."""

BASELINE_TRIAL = 0  # trial 0 is the fp32 model

# The MPIJob has the resource's own name; mpi-operator then takes NAME-config, NAME-ssh,
# NAME-launcher, NAME-worker-i and the Service NAME, so none of ours may end like those.


def mpijob_name(tuning: str) -> str:
    return tuning


def account_name(tuning: str) -> str:
    """ServiceAccount, Role and RoleBinding of the launcher."""
    return f"{tuning}-tuner"


def tuning_configmap(tuning: str) -> str:
    """Holds the resource as the ranks read it, key `tuning.yaml`; written by the operator."""
    return f"{tuning}-tuning"


def journal_configmap(tuning: str) -> str:
    """Holds the journal, a key per line; patched by the launcher."""
    return f"{tuning}-journal"


def result_configmap(tuning: str) -> str:
    """Holds the full configuration of the best trial, key `best.yaml`, results that wait to be told, key
    `answered.jsonl`, and ranks lost with trials, key `losses.json`; patched by the launcher."""
    return f"{tuning}-result"


TUNING_KEY = "tuning.yaml"
BEST_KEY = "best.yaml"
ANSWERED_KEY = "answered.jsonl"
LOSSES_KEY = "losses.json"
