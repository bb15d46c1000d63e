"""Tables to plotly figures; neither streamlit nor torch here."""
