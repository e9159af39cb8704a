"""Behaviour that both backbones share, on images of 40 x 24 px."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope

from mmdet_ext.face.backbones import MobileFaceNet
from tests._helpers.backbones import images, small_iresnet, step


@pytest.mark.parametrize(
    'make',
    [small_iresnet, lambda: MobileFaceNet(16, width=0.25, input_size=(40, 24))],
    ids=['IResNet', 'MobileFaceNet'],
)
class TestBoth:
    """Tests of both backbones."""

    def test_embedding_is_float32_under_autocast(self, make: Any) -> None:
        torch.manual_seed(0)
        model, x = make(), images()
        model.init_weights()
        (plain,) = model.eval()(x)
        with torch.autocast('cpu', torch.bfloat16):
            (mixed,) = model(x)
        assert mixed.dtype == torch.float32
        assert not mixed.equal(mixed.bfloat16().float())  # the embedding was not rounded
        assert F.cosine_similarity(plain, mixed).min() > 0.99
        (low,) = model.bfloat16()(x.bfloat16())
        assert low.dtype == torch.bfloat16
        assert F.cosine_similarity(plain, low.float()).min() > 0.97

    def test_images_of_other_sizes_are_errors(self, make: Any) -> None:
        model = make().eval()
        # 39 px give as many cells as 40 px, but are refused too.
        for size in [(24, 40), (39, 24), (112, 112)]:
            with pytest.raises(
                ValueError,
                match=(
                    rf'images of {size[0]} x {size[1]} px .* input_size=\(40, 24\).*'
                    rf'set input_size=\({size[0]}, {size[1]}\)'
                ),
            ):
                model(images(1, size))

    def test_batch_of_one_is_an_error_in_training_only(self, make: Any) -> None:
        model = make()
        with pytest.raises(ValueError, match=r'batch of 1 image .* drop_last=True'):
            model.train()(images(1))
        x = images(3)
        torch.testing.assert_close(model.eval()(x[:1])[0], model(x)[0][:1], rtol=1e-4, atol=1e-5)

    def test_seed_fixes_the_network_and_every_weight_learns(self, make: Any) -> None:
        states = []
        for _ in range(2):
            torch.manual_seed(5)
            model = make()
            model.init_weights()
            moved = step(model, images(4))
            states.append(model.state_dict())
        for first, second in zip(states[0].values(), states[1].values(), strict=True):
            assert first.equal(second) and first.isfinite().all()
        # A bias in front of a batch norm has no effect, and the gain of the embedding is fixed.
        still = set(model.state_dict()) - moved
        assert still <= {'features.weight', 'fc.bias'}

    def test_classifier_of_mmpretrain_accepts_it(self, make: Any) -> None:
        from mmpretrain.models import ImageClassifier

        backbone = make()
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = ImageClassifier(backbone=backbone, neck=None, head=None).eval()
        found = model.extract_feat(images())
        assert isinstance(found, tuple) and len(found) == 1
        torch.testing.assert_close(found[-1], backbone(images())[-1])

    def test_it_trains_under_the_margin_head(self, make: Any) -> None:
        from mmpretrain.models import ImageClassifier
        from mmpretrain.structures import DataSample

        torch.manual_seed(0)
        head = dict(
            type='mmdet_ext.MarginHead',
            num_classes=3,
            in_channels=16,
            scale=16.0,
            margin=dict(type='ArcFace', m=0.3),
        )
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = ImageClassifier(backbone=make(), neck=None, head=head)
        model.init_weights()
        labels = [DataSample().set_gt_label(index % 3) for index in range(6)]
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        losses = []
        for _ in range(24):
            losses.append(sum(model.loss(images(6), labels).values()))
            optimiser.zero_grad()
            losses[-1].backward()
            optimiser.step()
        # Momentum makes single steps rise, at which of them hangs on the processor.
        assert losses[0] > 3 and min(losses) < losses[0] / 6
