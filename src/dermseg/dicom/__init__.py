"""DICOM beyond reading pixels: results as DICOM objects, de-identification, and the work beside a PACS."""
