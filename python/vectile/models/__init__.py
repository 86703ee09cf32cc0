"""Whole networks."""

from vectile.models.autoencoder import VAE, Autoencoder
from vectile.models.bert import BERT, BERTClassifier, BERTConfig, BERTMaskedLM
from vectile.models.char_rnn import CharRNN, CharRNNConfig
from vectile.models.cyclegan import CycleGAN
from vectile.models.diffusion import Diffusion
from vectile.models.gan import DCDiscriminator, DCGenerator, MLPDiscriminator, MLPGenerator
from vectile.models.gpt import GPT, GPTConfig
from vectile.models.lenet import LeNet
from vectile.models.mlp import MLP
from vectile.models.resnet import ResNet, resnet18, small_resnet
from vectile.models.saved import load
from vectile.models.seq2seq import Seq2Seq, Seq2SeqConfig
from vectile.models.skipgram import SkipGram
from vectile.models.stylegan import StyleGenerator
from vectile.models.transformer import TransformerConfig, TranslationTransformer
from vectile.models.translator import Translator
from vectile.models.unet import UNet
from vectile.models.vit import ViT

__all__ = [
    "BERT",
    "GPT",
    "MLP",
    "VAE",
    "Autoencoder",
    "BERTClassifier",
    "BERTConfig",
    "BERTMaskedLM",
    "CharRNN",
    "CharRNNConfig",
    "CycleGAN",
    "DCDiscriminator",
    "DCGenerator",
    "Diffusion",
    "GPTConfig",
    "LeNet",
    "MLPDiscriminator",
    "MLPGenerator",
    "ResNet",
    "Seq2Seq",
    "Seq2SeqConfig",
    "SkipGram",
    "StyleGenerator",
    "TransformerConfig",
    "TranslationTransformer",
    "Translator",
    "UNet",
    "ViT",
    "load",
    "resnet18",
    "small_resnet",
]
