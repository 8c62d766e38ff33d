"""The skin mixture against the published values and against a direct evaluation of its densities."""

import numpy as np
import pytest
import torch

from facegpt.perception.skin import _OTHER, _SKIN, skin_probability

# Values measured on the reference implementation (spec, section 3).
REFERENCE = {
    (224, 172, 150): 0.99174,
    (141, 85, 60): 0.98444,
    (70, 45, 35): 0.86285,
    (255, 255, 255): 0.18762,
    (128, 128, 128): 0.01365,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matches_the_reference_values(dtype):
    image = torch.tensor(list(REFERENCE), dtype=dtype).T.reshape(1, 3, 1, 5) / 255
    expected = torch.tensor(list(REFERENCE.values()), dtype=dtype)
    assert torch.allclose(skin_probability(image)[0, 0], expected, atol=1.5e-5, rtol=0)


def test_equals_the_ratio_of_the_densities():
    random = np.random.default_rng(0)
    rgb = random.uniform(0.2, 0.8, (40, 3)) * 255
    y = 16 + rgb @ [65.481, 128.553, 24.966] / 255
    cb = 128 + rgb @ [-37.797, -74.203, 112.0] / 255
    cr = 128 + rgb @ [112.0, -93.786, -18.214] / 255
    color = np.stack([y, cb, cr], 1)

    def density(table):
        total = 0.0
        for weight, m1, m2, m3, determinant, a, b, c, d, e, f in table:
            inverse = np.array([[a, b, c], [b, d, e], [c, e, f]])
            # the table's determinants must belong to its inverses; a mistyped digit would show here
            assert abs(np.linalg.det(inverse) * determinant - 1) < 1e-6
            delta = color - [m1, m2, m3]
            exponent = -0.5 * np.einsum("ni,ij,nj->n", delta, inverse, delta)
            total = total + weight * np.exp(exponent) / np.sqrt((2 * np.pi) ** 3 * determinant)
        return total

    skin, other = density(_SKIN), density(_OTHER)
    expected = 0.8 * skin / (0.8 * skin + 0.2 * other)
    image = torch.from_numpy(rgb / 255).T.reshape(1, 3, 40, 1)
    assert np.allclose(skin_probability(image)[0, :, 0].numpy(), expected, atol=1e-9)


def test_saturated_colors_stay_finite():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # densities underflow in float32 there
    probability = skin_probability(corners.T.reshape(1, 3, 8, 1))
    assert torch.isfinite(probability).all()
    assert probability[0, 1, 0] < 0.01  # pure blue
