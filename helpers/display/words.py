"""Every sentence of the day by its code, one table per kind; `french.fill` puts the values in.

An entry that is a pair has a second sentence for the case that its list of names is empty.
"""

from helpers.bench_latency import NO_GPU, NO_KERNELS, NOT_ASKED
from helpers.clocks import HOST_TOO_SLOW, LAUNCHES_BLOCK, QUEUE_TOO_SHORT, WAITS_INSIDE
from helpers.display.french import fill
from helpers.validation import ACCEPTED, CONTRADICTED, NOT_ACCEPTED, RESERVED, UNPROVEN

CLOCK_NAMES = {"gpu": "horloge GPU", "host": "horloge hôte"}
OUTCOMES = {ACCEPTED: "ACCEPTÉ", RESERVED: "ACCEPTÉ SOUS RÉSERVE", NOT_ACCEPTED: "NON ACCEPTÉ"}
NOUNS = {
    "sm": "SM",
    "memory": "mémoire",
    "power_cap": "limite de puissance",
    "hardware_slowdown": "ralentissement matériel",
    "software_thermal": "ralentissement thermique logiciel",
    "hardware_thermal": "ralentissement thermique matériel",
    "power_brake": "freinage par l'alimentation",
}

# What was seen around a block of samples, by the tag's code.
TAG_LABELS = {
    "foreign_gpu_process": "processus étranger",
    "gpu_clock_drop": "fréquence GPU abaissée",
    "throttle": "GPU bridé",
    "gpu_disturbed": "GPU perturbé",
    "gpu_shift": "bloc GPU plus lent",
    "cpu_load": "CPU occupé",
    "steal": "CPU volé",
    "preempted": "processus interrompu",
}
TAGS = {
    "foreign_gpu_process": (
        "processus étranger {pids}, {share:%} des SM",
        "processus étranger (PID masqués), au moins {share:%} des SM",
    ),
    "gpu_clock_drop": "fréquence {clock} à {mhz} MHz au lieu de {best_mhz} (−{drop:%})",
    "throttle": (
        "fréquence du GPU bridée ({reasons}), {share:%} du temps",
        "fréquence du GPU bridée (limite de puissance ou de température), {share:%} du temps",
    ),
    "gpu_disturbed": "GPU occupé par autre chose : {share:%} des échantillons de l'horloge GPU "
    "dépassent leur niveau de plus de 10 % (jusqu'à {largest_ms} ms)",
    "gpu_shift": "bloc plus lent de {slower:%} que le plus rapide, sur l'horloge GPU",
    "cpu_load": "CPU occupé par d'autres : {share:%} des {cpus} cœurs logiques",
    "steal": "temps du cœur pris par l'hyperviseur : {share:%}",
    "preempted": "processus interrompu {times} fois, {share:%} du temps hors du CPU",
}
STEADY_POWER_CAP = (
    "limite de puissance du GPU atteinte en permanence, fréquence stable : une condition de la "
    "mesure, non une perturbation"
)
# What a run or its calibration says against its figures: column `flags`, reserves of the verdict.
FLAG_LABELS = TAG_LABELS | {
    "unsteady_warmup": "échauffement non stabilisé",
    "conditions_not_met": "conditions non tenues",
    "gpu_clock_unavailable": "horloge GPU absente",
    "retried_batches": "séries remesurées",
    CONTRADICTED: "horloge GPU contredite par les noyaux",
    UNPROVEN: "horloge GPU non recoupée",
    "uncalibrated": "horloge hors tolérance",
    "not_calibrated": "non étalonnée",
    "mean_spread": "moyennes trop écartées",
}

# Why the runs' p95 differ.
CAUSES = {
    "launch_bound": "l'horloge hôte mesure surtout Python et le lancement des noyaux (p50 hôte "
    "{host_ms} ms, p50 GPU {gpu_ms} ms) : le bruit est celui du processeur",
    "level_shift": "la latence change de {relative:%} vers l'itération {iteration}",
    "between_modes": "p95 instable : deux régimes de latence se rejoignent autour du 95ᵉ centile "
    "(p93 = {p93_ms} ms, p97 = {p97_ms} ms)",
    "retried_batches": "séries remesurées, leur porte s'étant ouverte trop tôt : {batches}",
    "unsteady_warmup": "latence non stabilisée après {iterations} itérations d'échauffement",
    "no_interval": "trop peu d'échantillons indépendants pour un intervalle du p95",
    "chance": "même sans différence entre runs, le critère échouerait dans {chance:%} des cas : la "
    "dispersion est déjà dans chaque run",
    "unknown": "aucune cause identifiée dans les échantillons : les runs diffèrent entre eux "
    "plus qu'en eux-mêmes",
}

# What to do, by what was seen: flags of the deciding clock, causes; the protocol shows this table.
TO_DO = {
    ("foreign_gpu_process", "gpu_disturbed"): "arrêter l'autre processus du GPU ou attendre sa "
    "fin, puis relancer",
    (
        "cpu_load",
        "preempted",
        "steal",
    ): "libérer l'hôte, ou juger par l'horloge GPU (`clock=\"gpu\"`)",
    ("throttle", "gpu_clock_drop"): "brancher le secteur, améliorer le refroidissement, fixer les "
    "fréquences (`nvidia-smi -lgc`)",
    ("gpu_shift",): "relancer sur un GPU au repos ; ne pas comparer cette session",
    ("unsteady_warmup",): "relancer avec `-p warmup_iters 200`",
    ("between_modes",): "relancer avec `-p measure_iters 2000`",
    (
        "level_shift",
        "mean_spread",
    ): "relancer ; si cela revient, chercher ce qui démarre à ce moment",
    ("launch_bound",): "juger par l'horloge GPU ; la variante `cudagraph` supprime les lancements",
    ("uncalibrated", "not_calibrated"): "relancer ; si cela revient, ne comparer à aucune autre "
    "session",
    ("gpu_clock_unavailable", CONTRADICTED): "suivre la raison donnée plus bas (attente dans le "
    "modèle, file trop courte, flux à part)",
}

SEEN = FLAG_LABELS | {
    "between_modes": "p95 entre deux régimes",
    "level_shift": "latence qui change de niveau",
    "launch_bound": "bruit de lancement",
}

# What a forward waits for.
_FACTS = (
    "(p50 hôte {host_ms} ms, p50 GPU {gpu_ms} ms, somme des {kernels:.0f} noyaux {kernel_ms} ms)"
)
BOUNDS = {
    "no_gpu_clock": "Pas d'horloge GPU ici : la latence hôte est celle du calcul sur le "
    "processeur ; un GPU, moins de précision ou un modèle compilé l'abaisseraient.",
    "launches": f"Limitée par les lancements {_FACTS} : l'appelant attend Python et le pilote, pas "
    "le GPU. Un graphe CUDA, torch.compile(mode='reduce-overhead') ou un lot plus grand "
    "aideraient ; un GPU plus rapide, non.",
    "gpu": f"Limitée par le GPU {_FACTS} : une précision réduite, channels_last ou la fusion des "
    "opérations aideraient ; un processeur plus rapide, non.",
}

# Why there is no GPU clock; {why} is the first line of the error itself.
NO_GPU_CLOCK = {
    NO_GPU: "aucun GPU CUDA",
    NOT_ASKED: 'clock="host" l\'écarte',
    NO_KERNELS: "ses noyaux n'ont pu être compilés ou lancés ici ({why})",
    LAUNCHES_BLOCK: "CUDA_LAUNCH_BLOCKING est définie, chaque lancement attend le GPU : la "
    "retirer, puis redémarrer le noyau",
    QUEUE_TOO_SHORT: "un passage lance plus de noyaux que la file de lancement n'en contient : "
    "définir CUDA_SCALE_LAUNCH_QUEUES=4x avant de lancer Python, ou capturer le modèle dans un "
    "graphe (variante `cudagraph`)",
    WAITS_INSIDE: "le modèle attend le GPU pendant son passage (.item(), .cpu(), synchronize), ses "
    "noyaux ne peuvent donc pas être mis en file",
    HOST_TOO_SLOW: "l'hôte n'a pas pu remplir la file à temps (processeur occupé, ou quota trop "
    "petit) ; ce run n'a que l'horloge hôte",
}
DOUBTS = {
    CONTRADICTED: "L'horloge GPU est CONTREDITE par les noyaux : elle lit {gpu_ms} ms, ils durent "
    "{kernel_ms} ms par passage. Le modèle calcule sur un flux CUDA à lui ; l'horloge hôte décide, "
    "les chiffres GPU portent le signalement `gpu_clock_contradicted`.",
    UNPROVEN: "L'horloge GPU n'a pu être recoupée (aucun noyau visible du profileur) et lit moins "
    "d'un cinquième de l'horloge hôte : ses chiffres portent le signalement `gpu_clock_unproven`.",
}
SWITCHES = {
    "grad_enabled": "Gradient calculé",
    "inference_mode": "Mode inférence",
    "tf32_convolutions": "TF32 dans les convolutions",
    "tf32_matmul": "TF32 dans les produits matriciels",
    "gc_enabled": "Ramasse-miettes actif",
}
RECEIPTS = {
    "calibrated": "horloges étalonnées, dans leurs tolérances",
    "uncalibrated": "session NON ÉTALONNÉE : une horloge dépasse sa propre tolérance",
    "not calibrated": "pas d'étalonnage possible sur cette plateforme",
}

# What the session says of a further one: where its p95 would land, or why nobody knows.
FURTHER = "refaite, la session donnerait {low} – {high} ms"
NO_FURTHER = {
    "few_runs": "Moins de trois runs : rien ne dit où se placerait une session refaite.",
    "one_process": "Un seul processus a mesuré tous les runs : leurs intervalles ignorent les "
    'autres processus, dont le niveau peut différer (`isolation="process"` le montre).',
}
LAUNCH_COST = (
    "Chaque lancement coûte {low} à {high} µs au GPU selon le processus : p50 du modèle tel quel "
    "{gpu_ms} ms, de sa capture en graphe CUDA {graph_ms} ms, pour {launches:.0f} lancements."
)
NO_LAUNCH_COST = "Coût d'un lancement : non observable, par graphe CUDA ou par profileur ({why})."
NOTHING_MEASURED = "Aucun run mesuré : rien à tracer."


# The data: where they come from, and what was checked of them: label, sentence if ok, if not.
SOURCES = {
    "files": "fichiers de {place}",
    "kept": "{origin} ; gardé dans {place}",
    "not_kept": "{origin} ; pas gardé dans {place} : {why}",
    "drawn": "images synthétiques dessinées par le projet (graine {seed}), comme demandé",
    "fallback": "images synthétiques dessinées par le projet (graine {seed}), faute de CIFAR-10 : "
    "{why}",
}
_SIZES = "{train:,} images d'entraînement, {test:,} images de test"
_SHAPES = "entraînement ({train}), test ({test})"
_GAP = "mesuré [{found}], constantes [{expected}], écart maximal {gap:2} (tolérance {tolerance:1})"
_PRINTS = "(SHA-256 entraînement {train}…, test {test}…)"
CHECKS = {
    "sizes": ("tailles", _SIZES, f"{_SIZES} ; attendu : 50 000 et 10 000, autant d'étiquettes"),
    "layout": (
        "formes et types",
        f"{_SHAPES} (image, ligne, colonne, canal RVB) ; images uint8, étiquettes int64",
        f"{_SHAPES} ; types {{types}} ; attendu (n, 32, 32, 3), uint8 et int64",
    ),
    "classes": (
        "classes",
        "{count} classes : {names}",
        "étiquettes de {count} valeurs, qui ne sont pas 0 à 9",
    ),
    "balance": (
        "équilibre",
        "par classe : entraînement {train_min}, test {test_min}",
        "par classe : entraînement {train_min} à {train_max}, test {test_min} à {test_max}",
    ),
    "mean": ("moyenne", _GAP, _GAP),
    "std": ("écart type", _GAP, _GAP),
    "fingerprint": (
        "empreinte",
        f"ce sont exactement les images et étiquettes de CIFAR-10 {_PRINTS}",
        f"ce n'est PAS CIFAR-10, contrairement à ce que dit son nom {_PRINTS}",
    ),
    "fingerprint_synthetic": (
        "empreinte",
        f"jeu synthétique : ce n'est pas CIFAR-10 {_PRINTS}",
        f"ce ne sont plus les images qui ont été dessinées {_PRINTS}",
    ),
}


def said(table: dict, code: str, values: dict) -> str:
    """The table's sentence for `code`, filled; a code that the table lacks stands for itself."""
    template = table.get(code, code)
    if isinstance(template, tuple):
        template = template[any(value in ((), []) for value in values.values())]
    return fill(template, values, NOUNS)
