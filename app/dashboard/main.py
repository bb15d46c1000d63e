"""The dashboard's entry: navigation only; each page is a file of `app/pages`.

It stands in a folder of its own: beside `pages` Streamlit would answer the first deep link with that page alone.
"""

from pathlib import Path

import streamlit as st

HERE = Path(__file__).parents[1]
# section -> (file and address, title, icon)
PAGES = {
    "": [("overview", "Overview", "home")],
    "Explore": [
        ("toy_lab", "Toy lab", "science"),
        ("sparsity", "Sparsity", "grain"),
        ("laziness", "Lazy neurons", "bedtime"),
        ("ladder", "Sparsity ladder", "stairs"),
        ("rank", "Rank", "compress"),
        ("memories", "Memories", "psychology"),
        ("coherence", "Coherence", "join_inner"),
        ("saes", "Sparse autoencoders", "filter_center_focus"),
        ("experts", "Experts", "hub"),
        ("secret", "Secret experts", "visibility_off"),
        ("worth", "Worth of experts", "balance"),
        ("emergence", "Emergence", "trending_down"),
        ("training", "Training", "model_training"),
    ],
    "Write": [("claims", "Claims", "gavel"), ("figures", "Figures", "insert_chart")],
    "Work": [("runs", "Runs", "folder_open"), ("jobs", "Jobs", "pending_actions")],
}

# a material icon here would be fetched from the network
st.set_page_config(page_title="sparsescope", page_icon=str(HERE / "assets" / "icon.svg"), layout="wide")
st.navigation(
    {
        section: [
            st.Page(
                HERE / "pages" / f"{name}.py",
                title=title,
                icon=f":material/{icon}:",
                url_path=name,
                default=name == "overview",
            )
            for name, title, icon in pages
            if (HERE / "pages" / f"{name}.py").exists()
        ]
        for section, pages in PAGES.items()
    }
).run()
