"""The sentences by their code, one table per kind; those built from figures are in verdict.py."""

from collections.abc import Iterable

from helpers.bench_latency import NO_GPU, NO_KERNELS, NOT_ASKED
from helpers.clocks import timing
from helpers.display.french import fill
from helpers.validation import ACCEPTED, CONTRADICTED, NOT_ACCEPTED, RESERVED, UNPROVEN

CLOCK_NAMES = {"gpu": "horloge GPU", "host": "horloge hôte"}
OUTCOMES = {ACCEPTED: "ACCEPTÉ", RESERVED: "ACCEPTÉ SOUS RÉSERVE", NOT_ACCEPTED: "NON ACCEPTÉ"}
DATASETS = {"cifar10": "CIFAR-10", "synthetic": "données synthétiques"}  # what was timed on
DATASETS |= {"random": "entrées aléatoires", "example": "entrées du modèle"}  # not images
ACCURACY = "Exactitude {fraction:%4} sur {images:,} images (à 95 % : de {low:%3} à {high:%3})."
CHANGED = (
    "paramètres ou session modifiés : relancez tout depuis le § 0 ; `session` : autre nom, ou rien"
)
NO_ACCURACY = "Exactitude sans objet : les entrées ne sont pas des images de CIFAR-10."
# What was seen, in a word or two, by its code: tags, other flags of a run or session, causes.
LABELS = {"foreign_gpu_process": "processus étranger", "cpu_load": "CPU occupé"}
LABELS |= {"gpu_clock_drop": "fréquence GPU abaissée", "gpu_disturbed": "GPU perturbé"}
LABELS |= {"throttle": "GPU bridé", "gpu_shift": "bloc GPU plus lent"}
LABELS |= {"steal": "CPU volé", "preempted": "processus interrompu"}
LABELS |= {CONTRADICTED: "horloge GPU contredite par les noyaux CUDA"}
LABELS |= {UNPROVEN: "horloge GPU non recoupée", "uncalibrated": "horloge hors tolérance"}
LABELS |= {"unsteady_warmup": "échauffement non stabilisé", "not_calibrated": "non étalonnée"}
LABELS |= {"conditions_not_met": "conditions non tenues", "mean_spread": "moyennes écartées"}
LABELS |= {"gpu_clock_unavailable": "pas d'horloge GPU", "retried_batches": "séries remesurées"}
LABELS |= {"between_modes": "p95 entre deux régimes", "launch_bound": "bruit de lancement"}
LABELS |= {"level_shift": "latence qui change de niveau", "chance": "échec possible par hasard"}
TAGS = {  # around a block of samples
    "foreign_gpu_process": "processus étranger (PID {pids}), {share:%} des SM",
    "gpu_clock_drop": "fréquence {clock} à {mhz} MHz au lieu de {best_mhz} (−{drop:%})",
    "throttle": "fréquence du GPU bridée (raison : {reasons}), {share:%} du temps",
    "gpu_disturbed": "{share:%} d'échantillons GPU perturbés, jusqu'à {largest_ms} ms",
    "gpu_shift": "bloc plus lent de {slower:%} que le plus rapide, sur l'horloge GPU",
    "cpu_load": "CPU occupé par d'autres : {share:%} des {cpus} cœurs logiques",
    "steal": "temps du cœur pris par l'hyperviseur : {share:%}",
    "preempted": "processus interrompu {times} fois, {share:%} du temps hors du CPU",
}
STEADY_POWER_CAP = "limite de puissance du GPU toujours atteinte, fréquence stable : sans effet"
CAUSES = {  # why the runs' p95 differ
    "launch_bound": "l'horloge hôte lit surtout les lancements (p50 {host_ms} ms, GPU {gpu_ms} ms)",
    "level_shift": "la latence passe de {before_ms} à {after_ms} ms vers le passage {iteration}",
    "between_modes": "p95 entre deux régimes de latence (p93 = {p93_ms} ms, p97 = {p97_ms} ms)",
    "retried_batches": "séries remesurées, leur porte s'étant ouverte trop tôt : {batches}",
    "unsteady_warmup": "latence non stabilisée après {iterations} passages d'échauffement",
    "no_interval": "trop peu d'échantillons indépendants pour un intervalle du p95",
    "chance": "même sans différence entre runs, le critère échouerait dans {chance:%} des cas",
    "unknown": "aucune cause trouvée : les runs diffèrent entre eux plus qu'en eux-mêmes",
}
# What to do, by what was seen: flags of the deciding clock, causes; the protocol shows this table.
TO_DO = {  # what begins with "si" is for after the next try
    ("foreign_gpu_process", "gpu_disturbed"): "arrêter l'autre processus du GPU",
    ("cpu_load", "preempted", "steal"): "libérer l'hôte de ses autres programmes",
    ("throttle", "gpu_clock_drop"): "brancher le secteur, refroidir, fixer les fréquences "
    "(`nvidia-smi -lgc`)",
    ("gpu_shift",): "prendre un GPU au repos, sans comparer cette session",
    ("unsteady_warmup",): "ajouter `-p warmup_iters 500` (déjà fait : le double)",
    ("between_modes", "chance"): "ajouter `-p measure_iters 2000` (déjà fait : quatre fois plus)",
    ("level_shift",): "si cela dure, voir ce qui change au passage que nomme la cause",
    ("mean_spread",): "si cela se répète, chercher ce qui diffère d'un run à l'autre",
    ("launch_bound",): "juger par l'horloge GPU ; la variante `cudagraph` supprime les lancements",
    ("uncalibrated", "not_calibrated"): "si cela se répète, ne pas comparer",
    ("gpu_clock_unavailable", CONTRADICTED): "suivre la raison donnée plus bas pour l'horloge GPU",
}
_FACTS = "(p50 hôte {host_ms} ms, p50 GPU {gpu_ms} ms, {kernels:.0f} noyaux CUDA : {kernel_ms} ms)"
BOUNDS = {
    "no_gpu_clock": "Pas d'horloge GPU ici : la latence hôte est celle du calcul sur le CPU.",
    "launches": f"Latence limitée par les lancements {_FACTS} : un graphe CUDA, "
    "torch.compile(mode='reduce-overhead') ou un lot plus grand aideraient ; un autre GPU, non.",
    "gpu": f"Latence limitée par le GPU {_FACTS} : une précision réduite, channels_last ou la "
    "fusion des opérations aideraient ; un processeur plus rapide, non.",
}
NO_GPU_CLOCK = {  # {why}: the first line of the error itself
    NO_GPU: "aucun GPU CUDA",
    NOT_ASKED: 'clock="host" l\'écarte',
    NO_KERNELS: "ses noyaux CUDA n'ont pu être compilés ou lancés ici (« {why} »)",
    timing.LAUNCHES_BLOCK: "CUDA_LAUNCH_BLOCKING est définie : la retirer, redémarrer le kernel "
    "Python",
    timing.QUEUE_TOO_SHORT: "un passage lance plus de noyaux CUDA que la file n'en contient : "
    "fixer CUDA_SCALE_LAUNCH_QUEUES=4x avant de lancer Python, ou choisir la variante `cudagraph`",
    timing.WAITS_INSIDE: "le modèle attend le GPU pendant son passage (.item(), .cpu(), "
    "synchronize)",
    timing.NOT_QUEUEABLE: "le modèle attend le GPU pendant son passage, ou lance plus de noyaux "
    "CUDA que la file n'en contient : sans profileur, rien ne dit lequel des deux",
    timing.HOST_TOO_SLOW: "l'hôte n'a pas rempli la file à temps (processeur occupé ou quota trop "
    "petit)",
}
DOUBTS = {
    CONTRADICTED: "L'horloge GPU est CONTREDITE par les noyaux CUDA : {gpu_ms} ms, contre "
    "{kernel_ms} ms par passage. Le modèle a son propre flux CUDA ; l'horloge hôte décide.",
    UNPROVEN: "L'horloge GPU lit moins de 20 % de l'horloge hôte, sans profil pour la recouper.",
}
NOT_MET = "ATTENTION, conditions de précision non tenues ({precision}) : {found}."
COPIES = {
    "unseen": "Copies hôte↔GPU dans la boucle : non observables (profileur : « {why} »).",
    "no_gpu": "Copies hôte↔GPU : sans objet sur un processeur.",
    "none": "Copies hôte↔GPU dans la boucle : aucune ({forwards} passages profilés).",
    "some": "ATTENTION, copies hôte↔GPU : {host_to_device} vers le GPU, {device_to_host} retours.",
}
SWITCHES = {"grad_enabled": "Gradient calculé", "inference_mode": "Mode inférence"}
SWITCHES |= {"tf32_convolutions": "TF32 dans les convolutions", "gc_enabled": "Ramasse-miettes"}
SWITCHES |= {"tf32_matmul": "TF32 dans les produits matriciels"}
RECEIPTS = {
    "calibrated": "horloges étalonnées, dans leurs tolérances",
    "uncalibrated": "session NON ÉTALONNÉE : une horloge dépasse sa propre tolérance",
    "not calibrated": "pas d'étalonnage possible sur cette plateforme",
}
NO_FURTHER = {
    "few_runs": "Moins de trois runs : où tomberait une session refaite ne peut être estimé.",
    "one_process": "Un seul processus : l'écart entre processus est inconnu (voir `isolation`).",
}
LAUNCH_COST = "Chaque lancement coûte {low} à {high} µs au GPU ({launches:.0f} lancements, p50 "
LAUNCH_COST += "{gpu_ms} ms tel quel, {graph_ms} ms en graphe CUDA)."
NO_LAUNCH_COST = "Coût d'un lancement : non observable (graphe CUDA ou profileur : « {why} »)."
DETAILS = "<details>\n<summary>Tout le verdict, avec ses causes</summary>"

# The data: where they come from, and what was checked of them: label, sentence, if not ok.
_DRAWN = "images synthétiques dessinées par le projet (graine {seed})"
SOURCES = {
    "files": "fichiers de {place}",
    "kept": "{origin} ; gardé dans {place}",
    "not_kept": "{origin} ; pas gardé dans {place} : « {why} »",
    "drawn": _DRAWN,
    "fallback": f"{_DRAWN}, faute de CIFAR-10 : « {{why}} »",
}
_BALANCE = "par classe : entraînement {train_min} à {train_max}, test {test_min} à {test_max}"
_GAP = "mesuré [{found}], constantes [{expected}], écart maximal {gap:2} (tolérance {tolerance:1})"
_SHA = "(SHA-256 entraînement {train}…, test {test}…)"
_DRAWN_SHA = f"celle des images dessinées, qui ne sont pas CIFAR-10 {_SHA}"
CHECKS = {
    "sizes": ("tailles", "{train:,} images d'entraînement, {test:,} de test (50 000 et 10 000)"),
    "layout": ("formes et types", "{train} et {test} : image, ligne, colonne, canal ; {types}"),
    "classes": ("classes", "{count} classes : {names}", "{count} étiquettes, qui ne sont pas 0–9"),
    "balance": ("équilibre", _BALANCE),
    "mean": ("moyenne", _GAP),
    "std": ("écart type", _GAP),
    "fingerprint": ("empreinte", f"celle de CIFAR-10 {_SHA}", f"ce n'est PAS CIFAR-10 {_SHA}"),
    "fingerprint_synthetic": ("empreinte", _DRAWN_SHA, f"les images dessinées ont changé {_SHA}"),
}


def labels(codes: Iterable[str]) -> str:
    """The labels of the codes, each once; a code without one stands for itself."""
    return ", ".join(dict.fromkeys(LABELS.get(code, code) for code in codes))


def said(table: dict, code: str, values: dict) -> str:
    """The table's sentence for `code`, filled; a code that the table lacks stands for itself."""
    return fill(table.get(code, code), values)
