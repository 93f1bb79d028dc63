"""BraTS 2020: brain MRI with tumour regions and grades."""
