"""Whose claims and methods the figures show, as BibTeX."""

BIBTEX = {
    "li2023lazy": """@inproceedings{li2023lazy,
  title = {The Lazy Neuron Phenomenon: On Emergence of Activation Sparsity in Transformers},
  author = {Li, Zonglin and You, Chong and Bhojanapalli, Srinadh and Li, Daliang and Rawat, Ankit Singh and Reddi,
    Sashank J. and Ye, Ke and Chern, Felix and Yu, Felix and Guo, Ruiqi and Kumar, Sanjiv},
  booktitle = {International Conference on Learning Representations},
  year = {2023},
  note = {arXiv:2210.06313},
}""",
    "sun2024massive": """@inproceedings{sun2024massive,
  title = {Massive Activations in Large Language Models},
  author = {Sun, Mingjie and Chen, Xinlei and Kolter, J. Zico and Liu, Zhuang},
  booktitle = {Conference on Language Modeling},
  year = {2024},
  note = {arXiv:2402.17762},
}""",
    "elhage2022toy": """@article{elhage2022toy,
  title = {Toy Models of Superposition},
  author = {Elhage, Nelson and Hume, Tristan and Olsson, Catherine and Schiefer, Nicholas and Henighan, Tom and
    Kravec, Shauna and Hatfield-Dodds, Zac and Lasenby, Robert and Drain, Dawn and Chen, Carol and Grosse, Roger and
    McCandlish, Sam and Kaplan, Jared and Amodei, Dario and Wattenberg, Martin and Olah, Christopher},
  journal = {Transformer Circuits Thread},
  year = {2022},
  note = {arXiv:2209.10652},
}""",
}
"""BibTeX entries by key."""
