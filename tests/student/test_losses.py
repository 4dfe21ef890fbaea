"""The terms of the objective against slow sums in float64 (specification 4.9), and their properties (10.6)."""

from itertools import product
from math import exp, log, prod, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.finetuning.losses import catalogue_loss, retrieval_loss
from llmsrec.student.losses import contrastive_loss, distillation_loss, uniformity_loss

Vectors = list[list[float]]
SIZE = 4
vector = st.lists(st.floats(-5, 5), min_size=SIZE, max_size=SIZE).filter(
    lambda values: sum(value * value for value in values) > 0.01
)


@st.composite
def paired(draw: st.DrawFn) -> tuple[Vectors, Vectors]:
    """A student's and a teacher's vectors of the same users."""
    count = draw(st.integers(1, 6))
    return tuple(draw(st.lists(vector, min_size=count, max_size=count)) for _ in range(2))  # type: ignore[return-value]


def tensor(values: Vectors) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def unit(values: list[float]) -> list[float]:
    length = sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def dot(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def squared_distance(first: list[float], second: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True))


@given(st.lists(st.lists(st.floats(-9, 9), min_size=4, max_size=4), min_size=1, max_size=5))
def test_retrieval_is_the_cross_entropy_of_column_0(scores: Vectors) -> None:
    slow = sum(-log(exp(row[0]) / sum(map(exp, row))) for row in scores) / len(scores)
    assert retrieval_loss(tensor(scores)).item() == pytest.approx(slow, abs=1e-9)


def test_an_excluded_candidate_has_no_loss_and_no_gradient() -> None:
    """In-batch negatives that a user owns are set to minus infinity."""
    scores = tensor([[1.0, 0.5, -torch.inf], [0.2, -torch.inf, -torch.inf]]).requires_grad_()
    loss = retrieval_loss(scores)
    assert loss.item() == pytest.approx(log(1 + exp(-0.5)) / 2)  # the second has no rival: 0
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[:, 2].tolist() == [0, 0]


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[Vectors, list[int], list[float], list[list[bool]]]:
    """Scores, the column of each target, the chance of each item to come, and which items may rival."""
    users, items = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    row = st.lists(st.floats(-6, 6), min_size=items, max_size=items)
    may = st.lists(st.booleans(), min_size=items, max_size=items)
    return (
        draw(st.lists(row, min_size=users, max_size=users)),
        draw(st.lists(st.integers(0, items - 1), min_size=users, max_size=users)),
        draw(st.lists(st.floats(0.01, 1), min_size=items, max_size=items)),
        draw(st.lists(may, min_size=users, max_size=users)),
    )


@given(catalogues())
def test_catalogue_loss_weights_items_by_inverse_probability(
    drawn: tuple[Vectors, list[int], list[float], list[list[bool]]],
) -> None:
    """The target stands for itself, whether it was allowed as a rival or not."""
    scores, targets, chance, allowed = drawn
    total = 0.0
    for row, target, may in zip(scores, targets, allowed, strict=True):
        rivals = sum(
            exp(row[item]) / chance[item]
            for item in range(len(row))
            if may[item] and item != target
        )
        total -= log(exp(row[target]) / (exp(row[target]) + rivals))
    actual = catalogue_loss(
        tensor(scores), torch.tensor(targets), torch.tensor(chance).double(), torch.tensor(allowed)
    )
    assert actual.item() == pytest.approx(total / len(scores), abs=1e-6)


def test_with_probability_one_the_catalogue_loss_is_cross_entropy() -> None:
    scores = tensor([[0.3, -1, 2], [0.1, 0.2, 0.3]])
    sure, all_of_them = torch.ones(3).double(), torch.ones(2, 3, dtype=torch.bool)
    actual = catalogue_loss(scores, torch.tensor([2, 0]), sure, all_of_them)
    torch.testing.assert_close(
        actual, torch.nn.functional.cross_entropy(scores, torch.tensor([2, 0]))
    )


def test_the_weighted_sum_over_drawn_items_is_unbiased() -> None:
    """Over all draws of five negatives with different probabilities, the expected weighted sum is the full sum."""
    target, rivals, chances = 0.4, [1.0, -0.5, 0.2, 2.0, 0.0], [0.1, 0.9, 0.5, 0.3, 1.0]
    mean = 0.0
    for comes in product([True, False], repeat=5):
        probability = prod(
            chance if here else 1 - chance for chance, here in zip(chances, comes, strict=True)
        )
        drawn = [place for place, here in enumerate(comes) if here]
        loss = catalogue_loss(
            tensor([[target, *(rivals[place] for place in drawn)]]),
            torch.tensor([0]),
            torch.tensor([0.2, *(chances[place] for place in drawn)], dtype=torch.float64),
            torch.ones(1, len(drawn) + 1, dtype=torch.bool),
        )
        mean += probability * (exp(loss.item()) - 1) * exp(target)  # the rivals' part of the sum
    assert mean == pytest.approx(sum(map(exp, rivals)))


@given(paired(), st.booleans(), st.sampled_from(["mean", "sum"]))
def test_distillation_is_the_squared_distance(
    vectors: tuple[Vectors, Vectors], normalize: bool, reduction: str
) -> None:
    student, teacher = vectors
    if normalize:
        student, teacher = [unit(row) for row in student], [unit(row) for row in teacher]
    slow = sum(map(squared_distance, student, teacher)) / len(student)
    slow /= SIZE if reduction == "mean" else 1
    actual = distillation_loss(
        tensor(vectors[0]), tensor(vectors[1]), normalize=normalize, reduction=reduction
    )
    assert actual.item() == pytest.approx(slow, abs=1e-9)


@given(st.lists(vector, min_size=1, max_size=5), st.floats(0.1, 50))
def test_cosine_distillation_ignores_length(student: Vectors, factor: float) -> None:
    actual = distillation_loss(
        tensor(student), factor * tensor(student), normalize=True, reduction="mean"
    )
    assert actual.item() == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 1000))
def test_distillation_on_the_sphere_is_at_most_four_over_the_size(seed: int) -> None:
    """Specification 10.6: 2 (1 - cos) / 128 a user, so opposite directions give 4 / 128."""
    draws = torch.Generator().manual_seed(seed)
    student = torch.randn(5, 128, generator=draws, dtype=torch.float64)
    teacher = torch.randn(5, 128, generator=draws, dtype=torch.float64)
    actual = distillation_loss(student, teacher, normalize=True, reduction="mean").item()
    cosines = torch.cosine_similarity(student, teacher).tolist()
    assert actual == pytest.approx(sum(2 * (1 - cosine) / 128 for cosine in cosines) / 5)
    assert 0 <= actual <= 4 / 128
    opposite = distillation_loss(student, -3 * student, normalize=True, reduction="mean").item()
    assert opposite == pytest.approx(4 / 128)


@given(paired())
def test_contrastive_is_infonce_from_student_to_teacher(vectors: tuple[Vectors, Vectors]) -> None:
    """Each user's own teacher vector among all of the batch, cosine over 0.07."""
    student, teacher = ([unit(row) for row in side] for side in vectors)
    total = 0.0
    for user, vector in enumerate(student):
        weights = [exp(dot(vector, other) / 0.07) for other in teacher]
        total -= log(weights[user] / sum(weights))
    actual = contrastive_loss(tensor(vectors[0]), tensor(vectors[1])).item()
    assert actual == pytest.approx(total / len(student), abs=1e-9)


def test_contrastive_has_a_direction() -> None:
    """Two students near one teacher: the students cannot be told apart, so sides must not be exchanged."""
    student, teacher = tensor([[1, 0], [1, 0]]), tensor([[1, 0], [0, 1]])
    forth, back = contrastive_loss(student, teacher), contrastive_loss(teacher, student)
    assert forth.item() == pytest.approx((0 + 1 / 0.07) / 2, rel=1e-6)
    assert back.item() == pytest.approx(log(2))


def test_a_single_user_has_no_contrastive_loss() -> None:
    assert contrastive_loss(tensor([[1, 2]]), tensor([[-2, 1]])).item() == 0


@given(st.lists(vector, min_size=2, max_size=6))
def test_uniformity_is_the_mean_over_distinct_pairs(vectors: Vectors) -> None:
    units = [unit(row) for row in vectors]
    pairs = [
        exp(-2 * squared_distance(units[u], units[v])) for v in range(len(units)) for u in range(v)
    ]
    actual = uniformity_loss(tensor(vectors)).item()
    assert actual == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)


@given(st.lists(st.tuples(vector, st.integers(0, 2)), min_size=1, max_size=6))
def test_two_read_outs_of_one_user_are_not_a_pair(drawn: list[tuple[list[float], int]]) -> None:
    units, owners = [unit(row) for row, _ in drawn], [owner for _, owner in drawn]
    pairs = [
        exp(-2 * squared_distance(units[u], units[v]))
        for v in range(len(units))
        for u in range(v)
        if owners[u] != owners[v]
    ]
    actual = uniformity_loss(tensor([row for row, _ in drawn]), torch.tensor(owners)).item()
    assert actual == pytest.approx(sum(pairs) / len(pairs) if pairs else 0, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_collapsed_vectors_give_two_on_both_sides(dtype: torch.dtype) -> None:
    """Specification 10.6. Directions count: users that differ in length alone have collapsed too."""
    lengths = torch.tensor([[1.0], [2.0], [0.5]], dtype=dtype)
    users = lengths * torch.tensor([[0.3, -1.0, 2.0]], dtype=dtype)
    total = uniformity_loss(users) + uniformity_loss(-users)
    assert total.item() == pytest.approx(2, abs=1e-5)


def test_opposite_vectors_have_the_least_uniformity_loss() -> None:
    assert uniformity_loss(tensor([[1, 0], [-1, 0]])).item() == pytest.approx(exp(-8))


def test_one_user_has_no_pair() -> None:
    """Specification 6.12: 0, not NaN, and a gradient of 0."""
    user = tensor([[1, 2, 3]]).requires_grad_()
    loss = uniformity_loss(user)
    loss.backward()
    assert loss.item() == 0
    assert user.grad is not None
    assert (user.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_two_vectors_coincide(dtype: torch.dtype) -> None:
    users = torch.tensor([[1.0, 2], [1, 2], [-3, 1]], dtype=dtype, requires_grad=True)
    same = users.detach().clone().requires_grad_()
    losses = [
        uniformity_loss(users),
        contrastive_loss(users, same),
        distillation_loss(users, same, normalize=True, reduction="mean"),
        distillation_loss(users, same, normalize=False, reduction="sum"),
    ]
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, users)
        assert gradient.isfinite().all()


@given(st.lists(vector, min_size=2, max_size=4))
def test_uniformity_pushes_as_its_formula_does(vectors: Vectors) -> None:
    """The gradient against differences of the loss itself."""
    users = tensor(vectors).requires_grad_()
    assert torch.autograd.gradcheck(uniformity_loss, users, eps=1e-6, atol=1e-4)


def test_distillation_teaches_the_student_and_the_teachers_head() -> None:
    student = tensor([[1, 2], [0, 1]]).requires_grad_()
    teacher = tensor([[2, 1], [1, 1]]).requires_grad_()
    for loss in (
        distillation_loss(student, teacher, normalize=True, reduction="mean"),
        contrastive_loss(student, teacher),
    ):
        for gradient in torch.autograd.grad(loss, (student, teacher)):
            assert (gradient != 0).any()
