"""Mistakes in the wiring that must not pass: each is one edit of the source, and the tests that have to notice it."""

from typing import NamedTuple


class Edit(NamedTuple):
    """One mistake: `old`, which stands once in the file at `path`, becomes `new`; one of `tests` then fails."""

    name: str
    path: str
    old: str
    new: str
    tests: str


WORKSPACE, REGISTRY, LLM = (
    "tests/assets/workspace tests/assets/inputs",
    "tests/assets/registry",
    "tests/assets/test_llm.py",
)
STUDIES, DELIVERY = "tests/assets/studies", "tests/assets/test_delivery.py"
PROMOTIONS = "tests/assets/registry/test_promotions.py"
SASREC, SLMREC = "tests/models/baselines/test_sasrec.py", "tests/models/slmrec"
TRAINING = "tests/models/training"

EDITS = (
    # which rows a training reads
    Edit(
        "early stopping on the test split",
        "assets/inputs/validated_rows.py",
        'self.dataset.histories("validation"), self.dataset.targets("validation")',
        'self.dataset.histories("test"), self.dataset.targets("test")',
        WORKSPACE,
    ),
    Edit(
        "validation of other users than the profile draws",
        "assets/inputs/validated_rows.py",
        "users=self.users, seed=self.seed",
        "users=self.users, seed=0",
        WORKSPACE,
    ),
    Edit(
        "recommenders trained on test histories",
        "assets/inputs/training_rows.py",
        "sequences=self.dataset.training_sequences()",
        'sequences=self.dataset.histories("test")',
        WORKSPACE,
    ),
    Edit(
        "layer influence measured on test users",
        "assets/inputs/training_rows.py",
        'validation=self.dataset.histories("validation")',
        'validation=self.dataset.histories("test")',
        WORKSPACE,
    ),
    Edit(
        "held-out reviews in the language model's corpus",
        "assets/amazon/text.py",
        'pl.col("user").is_null() | pl.Series(may_be_read, dtype=pl.Boolean)',
        'pl.col("user").is_null() | pl.Series(may_be_read | True, dtype=pl.Boolean)',
        "tests/assets/amazon/test_text.py",
    ),
    Edit(
        "reviews from the time of validation in the corpus of a temporal split",
        "assets/amazon/text.py",
        "seconds(names) < dataset.cuts[0]",
        "seconds(names) < dataset.cuts[1]",
        "tests/assets/amazon/test_text.py",
    ),
    Edit(
        "theory measured on test users",
        "assets/studies/theory.py",
        'splits.histories("validation")',
        'splits.histories("test")',
        STUDIES,
    ),
    Edit(
        "temporal validation begins at the test's cut",
        "assets/amazon/splits.py",
        "        for cut in cuts\n",
        "        for cut in (cuts[1], cuts[1])\n",
        "tests/assets/amazon/test_splits.py",
    ),
    # what is judged, and on what
    Edit(
        "recommenders judged on the validation split",
        "assets/workspace/evaluations.py",
        """    histories, targets = dataset.histories("test"), dataset.targets("test")
    recommender, ranks""",
        """    histories, targets = dataset.histories("validation"), dataset.targets("validation")
    recommender, ranks""",
        WORKSPACE,
    ),
    Edit(
        "ranks taken on the validation split",
        "assets/workspace/evaluations.py",
        """    histories, targets = dataset.histories("test"), dataset.targets("test")
    directory""",
        """    histories, targets = dataset.histories("validation"), dataset.targets("validation")
    directory""",
        WORKSPACE,
    ),
    Edit(
        "an evaluation used again for another checkpoint",
        "assets/workspace/evaluations.py",
        '"checkpoint": checkpoint.identity',
        '"checkpoint": checkpoint.name',
        WORKSPACE,
    ),
    Edit(
        "90 % intervals",
        "evaluation/intervals.py",
        "LEVEL = (0.025, 0.975)",
        "LEVEL = (0.05, 0.95)",
        "tests/evaluation/test_intervals.py",
    ),
    Edit(
        "results labelled with the profile that judges",
        "assets/workspace/evaluations.py",
        "    training = checkpoint.training()\n",
        '    training = checkpoint.training().model_copy(update={"profile": "other"})\n',
        f"{WORKSPACE} tests/assets/test_results.py",
    ),
    # the gate
    Edit(
        "the gate accepts every student",
        "assets/delivery.py",
        "accepted=all(one.passed for one in findings)",
        "accepted=True",
        DELIVERY,
    ),
    Edit(
        "the gate accepts a student that was never judged",
        "assets/registry/gate.py",
        "same = judged == student",
        "same = bool(judged and student)",
        DELIVERY,
    ),
    Edit(
        "the gate accepts a student that is no better than popularity",
        "assets/registry/gate.py",
        "passed=ours > floor",
        "passed=ours >= floor",
        DELIVERY,
    ),
    Edit(
        "the champion is compared on other users",
        "assets/delivery.py",
        "        if version != splits.version:",
        "        if not version:",
        DELIVERY,
    ),
    Edit(
        "a student that was held back becomes the challenger",
        "assets/delivery.py",
        """    if decision.accepted:
        versions.set_alias""",
        """    if decision:
        versions.set_alias""",
        DELIVERY,
    ),
    Edit(
        "a challenger that fails a later verdict stays it",
        "assets/delivery.py",
        "        versions.remove_alias(decision.model, CHALLENGER)",
        "        pass",
        DELIVERY,
    ),
    Edit(
        "the gate takes whoever passes for the champion",
        "assets/delivery.py",
        "versions.set_alias(decision.model, CHALLENGER)",
        "versions.set_alias(decision.model, versions.CHAMPION)",
        DELIVERY,
    ),
    Edit(
        "the margin is ignored",
        "assets/registry/gate.py",
        "passed = difference.low >= -margin",
        "passed = difference.low >= -1",
        DELIVERY,
    ),
    Edit(
        "the margin is asked of the mean and not of the interval",
        "assets/registry/gate.py",
        "passed = difference.low >= -margin",
        "passed = difference.mean >= -margin",
        DELIVERY,
    ),
    Edit(
        "the challenger is the rival although there is a champion",
        "assets/registry/gate.py",
        "(CHAMPION, champion) if champion else",
        "(CHAMPION, champion) if not aliased(student.name, CHALLENGER) else",
        DELIVERY,
    ),
    Edit(
        "without a champion there is no rival",
        "assets/registry/gate.py",
        "(CHALLENGER, aliased(student.name, CHALLENGER))",
        "(CHALLENGER, None)",
        DELIVERY,
    ),
    Edit(
        "a slice that collapsed is let through",
        "assets/registry/gate.py",
        """passed=not told["collapsed"]""",
        """passed=bool(told)""",
        DELIVERY,
    ),
    Edit(
        "slices are judged however few their users are",
        "assets/registry/gate.py",
        "if users < rules.slice_users else",
        "if users < 1 else",
        DELIVERY,
    ),
    Edit(
        "a student that answers slowly is let through",
        "assets/registry/gate.py",
        "passed=middle <= budget",
        "passed=middle > 0",
        DELIVERY,
    ),
    Edit(
        "the verdict on the version is always that it passed",
        "assets/delivery.py",
        "PASSED if decision.accepted else FAILED",
        "PASSED",
        DELIVERY,
    ),
    Edit(
        "students are promoted without a reviewer",
        "assets/delivery.py",
        "if settings.gate.promote:",
        "if settings.gate:",
        DELIVERY,
    ),
    # the champion
    Edit(
        "a version that failed the gate is promoted",
        "assets/registry/promotions.py",
        "if tags.get(GATE_TAG) != PASSED:",
        "if not tags:",
        PROMOTIONS,
    ),
    Edit(
        "a version that was compared with another champion is promoted",
        "assets/registry/promotions.py",
        "if champion and rival_tag(champion) != rival:",
        "if champion and champion == version:",
        PROMOTIONS,
    ),
    Edit(
        "a promotion moves the challenger's alias",
        "assets/registry/promotions.py",
        "    set_alias(version, CHAMPION)",
        "    set_alias(version, CHALLENGER)",
        PROMOTIONS,
    ),
    Edit(
        "two processes write the log at once",
        "assets/registry/promotion_log.py",
        "with FileLock(path, timeout=SECONDS_TO_WAIT):",
        """with FileLock(f"{path}{os.getpid()}", timeout=SECONDS_TO_WAIT):""",
        PROMOTIONS,
    ),
    Edit(
        "changes by hand are not entered",
        "assets/registry/promotions.py",
        "    promotion_log.append(domain, found)\n",
        "",
        PROMOTIONS,
    ),
    Edit(
        "a domain has two champions",
        "assets/registry/promotions.py",
        "        remove_alias(champion, CHAMPION)",
        "        pass",
        PROMOTIONS,
    ),
    Edit(
        "of two champions the one of before stays",
        "assets/registry/champion.py",
        "if version != entries[-1].after]",
        "if version == entries[-1].after]",
        PROMOTIONS,
    ),
    Edit(
        "a rollback after a rollback goes forward again",
        "assets/registry/promotion_log.py",
        """if entry.action == "rolled back" and""",
        """if entry.action == "never" and""",
        PROMOTIONS,
    ),
    Edit(
        "make prune takes the version that a rollback restores",
        "assets/registry/retention.py",
        "(promotion_log.predecessor(entries), *(x.after for x in entries[-1:]))",
        "[x.after for x in entries[-1:]]",
        "tests/assets/registry/test_retention.py",
    ),
    Edit(
        "make prune takes the challenger",
        "assets/registry/retention.py",
        "version in kept or version.version in map(str, aliased)",
        "version in kept",
        "tests/assets/registry/test_retention.py",
    ),
    Edit(
        "results of different data in one table",
        "assets/results.py",
        "if len(versions) > 1:",
        "if len(versions) > 9:",
        "tests/assets/test_results.py",
    ),
    Edit(
        "a report of other data's statistics",
        "assets/results.py",
        "if statistics.data_version != results.data_version:",
        "if not statistics.data_version:",
        "tests/assets/test_results.py",
    ),
    Edit(
        "a champion's items taken by their numbers",
        "assets/registry/champion.py",
        "make=make, item_ids=item_ids)",
        "make=make, item_ids=dataset.item_ids)",
        REGISTRY,
    ),
    Edit(
        "a version that was never finished is served",
        "assets/registry/versions.py",
        'if version.status == "READY"',
        "if version.status",
        REGISTRY,
    ),
    # identities
    Edit(
        "a student may learn from another split's teacher",
        "assets/workspace/checkpoints.py",
        "if own not in (None, data_version, items_version):",
        "if own not in (None, data_version, items_version, own):",
        f"{WORKSPACE} {LLM}",
    ),
    Edit(
        "another checkpoint's files are read",
        "assets/workspace/checkpoints.py",
        "if found.identity != self.identity:",
        "if found.identity != self.identity and not self.name:",
        WORKSPACE,
    ),
    Edit(
        "damaged files are read",
        "assets/workspace/checkpoints.py",
        "if _digest(directory / name) != sha256",
        "if not (directory / name).exists()",
        WORKSPACE,
    ),
    Edit(
        "the precision is no part of the teacher's states",
        "models/slmrec/student.py",
        "self.distillation.states, self.training.precision)",
        'self.distillation.states, "float32")',
        f"{SLMREC} {LLM}",
    ),
    Edit(
        "normed or raw is no part of the teacher's states",
        "models/slmrec/student.py",
        "StatesSettings(self.distillation.blocks, self.distillation.states,",
        'StatesSettings(self.distillation.blocks, "normed",',
        f"{SLMREC} {LLM}",
    ),
    Edit(
        "upstream files are read without a look",
        "assets/workspace/recipe.py",
        "checkpoint.verified() for name",
        "checkpoint.directory for name",
        WORKSPACE,
    ),
    Edit(
        "the evaluation's settings are no part of its identity",
        "assets/workspace/evaluations.py",
        """"rules": rules,""",
        """"rules": None,""",
        WORKSPACE,
    ),
    Edit(
        "tables that were changed on disk are read",
        "assets/workspace/io_managers.py",
        "if hashlib.sha256(data).hexdigest() != sha256:",
        "if not data:",
        "tests/assets/workspace/test_io_managers.py",
    ),
    Edit(
        "make prune takes what is in use",
        "assets/workspace/retention.py",
        "newest[keep:] if path not in used]",
        "newest[keep:]]",
        "tests/assets/workspace/test_retention.py",
    ),
    Edit(
        "the profile's values for the domain are ignored",
        "assets/configuration/resources.py",
        "load_profile(path, domain, self.overrides)",
        "load_profile(path, None, self.overrides)",
        "tests/assets/test_baselines.py tests/assets/configuration",
    ),
    Edit(
        "the launchpad's overrides of a profile are ignored",
        "assets/configuration/resources.py",
        "load_profile(path, domain, self.overrides)",
        "load_profile(path, domain, {})",
        "tests/assets/configuration",
    ),
    Edit(
        "as_of is ignored",
        "assets/configuration/resources.py",
        "if self.as_of else {}",
        "if False else {}",
        "tests/assets/configuration",
    ),
    Edit(
        "checks without their domain",
        "orchestration/definitions.py",
        "output: spec._replace(partitions_def=partitions)",
        "output: spec",
        "tests/orchestration/test_definitions.py",
    ),
    Edit(
        "the language model's tokenizer doesn't know the prompt",
        "assets/backbone.py",
        "item_texts.texts, splits, PROMPT)",
        """item_texts.texts, splits, "")""",
        "tests/assets/test_backbone.py",
    ),
    Edit(
        "studies of other data in one report",
        "assets/studies/report.py",
        "if study.data_version != main_results.data_version:",
        "if not study.data_version:",
        STUDIES,
    ),
    Edit(
        "the depths are trained as the student is",
        "assets/studies/depth.py",
        "training=profile.studies.training or profile.teacher.training",
        "training=profile.studies.training or profile.student.training",
        STUDIES,
    ),
    # seeds
    Edit(
        "the profile's seed is ignored by recommenders",
        "assets/registry/trainings.py",
        "settings, profile.seed, inputs, upstream)\n",
        "settings, 0, inputs, upstream)\n",
        f"{REGISTRY} {LLM}",
    ),
    Edit(
        "the profile's seed is ignored by backbone, item embeddings and states",
        "assets/registry/trainings.py",
        "fit, settings, profile.seed, inputs, upstream or {}, writes=True",
        "fit, settings, 0, inputs, upstream or {}, writes=True",
        f"{REGISTRY} {LLM} tests/assets/test_backbone.py",
    ),
    Edit(
        "all seeds of a study are one",
        "assets/studies/cells.py",
        'name=f"{self.name}/{row.name}-s{seed}", seed=seed)',
        'name=f"{self.name}/{row.name}-s{seed}", seed=0)',
        STUDIES,
    ),
    Edit(
        "the seed of the course is another than the recipe's",
        "assets/workspace/recipe.py",
        "Course(seed=self.seed,",
        "Course(seed=0,",
        WORKSPACE,
    ),
    Edit(
        "the teacher's training ignores its seed",
        "models/slmrec/teacher.py",
        "on_backbone(data, settings.model, course.seed)",
        "on_backbone(data, settings.model, 0)",
        f"{SLMREC} {WORKSPACE}",
    ),
    Edit(
        "the student's training ignores its seed",
        "models/slmrec/student.py",
        """teacher, course.seed)
    hold_in_precision(settings.training, student)""",
        """teacher, 0)
    hold_in_precision(settings.training, student)""",
        SLMREC,
    ),
    # the method
    Edit(
        "online students are detached where they should not be",
        "models/slmrec/student.py",
        "detached=settings.detached",
        "detached=not settings.detached",
        f"{SLMREC} {STUDIES}",
    ),
    Edit(
        "raw read-outs are normed",
        "assets/studies/depth.py",
        "layer=layer, normed=name",
        'layer=layer, normed="" != name or name',
        STUDIES,
    ),
    Edit(
        "a backbone with too few layers is handed on",
        "models/slmrec/recommender.py",
        "if config.layers > (depth := architecture.num_hidden_layers):",
        "if config.layers > 9 * (depth := architecture.num_hidden_layers):",
        "tests/models/slmrec/test_recommender_sources.py",
    ),
    Edit(
        "LoRA's dropout is ignored",
        "models/backbone/lora.py",
        "lora_dropout=settings.dropout",
        "lora_dropout=0.0",
        "tests/models/backbone/test_lora.py",
    ),
    Edit(
        "LoRA's alpha is ignored",
        "models/backbone/lora.py",
        "lora_alpha=settings.alpha",
        "lora_alpha=settings.rank",
        "tests/models/backbone/test_lora.py",
    ),
    Edit(
        "SASRec's attention has no dropout",
        "models/baselines/sasrec.py",
        "self.dropout(items_BHLL) @ value_BHLd",
        "items_BHLL @ value_BHLd",
        SASREC,
    ),
    Edit(
        "SASRec's padding is dropped whole or not at all",
        "models/baselines/sasrec.py",
        "slots_BHL1 = empty_B111.expand_as(padding_BHL1).contiguous()",
        "slots_BHL1 = torch.ones_like(padding_BHL1)",
        SASREC,
    ),
    Edit(
        "SASRec's embeddings have no dropout",
        "models/baselines/sasrec.py",
        "x_BLD = self.dropout(items_BLD * math.sqrt(self.architecture.d) + positions_BLD)",
        "x_BLD = items_BLD * math.sqrt(self.architecture.d) + positions_BLD",
        SASREC,
    ),
    Edit(
        "SASRec trains on histories with their target as one more item",
        "models/baselines/sasrec.py",
        "items_BL = items_BL.masked_fill(targets_BL == PADDING, PADDING)",
        "items_BL = items_BL.clone()",
        SASREC,
    ),
    Edit(
        "SASRec's padding draws no attention away",
        "models/baselines/sasrec.py",
        "to_padding_BHL1 = query_BHLd @ key_H1d.mT + empty_B111.log()",
        "to_padding_BHL1 = query_BHLd @ key_H1d.mT - torch.inf",
        SASREC,
    ),
    Edit(
        "items that nobody bought keep a vector of their own beside their text's",
        "models/baselines/sasrec.py",
        "model.items.leave_to_text(torch.from_numpy(never_bought))",
        "model.items.leave_to_text(torch.zeros(1, dtype=torch.long))",
        "tests/models/baselines/test_sasrec_text.py",
    ),
    Edit(
        "random batches are of like length",
        "models/training/loop.py",
        'if config.batches == "like_length" else np.zeros(len(examples), dtype=np.int64)',
        "",
        TRAINING,
    ),
    Edit(
        "no clipping is clipping at 1",
        "models/training/run.py",
        "max_grad_norm=config.clip or 0.0",
        "max_grad_norm=config.clip or 1.0",
        TRAINING,
    ),
    Edit("Adam's β2 is another", "models/training/run.py", "adam_beta2=0.999", "adam_beta2=0.9", TRAINING),
)
