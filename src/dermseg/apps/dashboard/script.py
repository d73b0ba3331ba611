"""What Streamlit runs."""

from dermseg.apps.dashboard.app import main

main()
