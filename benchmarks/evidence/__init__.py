"""Does choosing save labels: by a learner in closed form and by finetuning, and why the defaults are what they are."""
