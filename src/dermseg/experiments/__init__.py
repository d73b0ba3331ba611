"""Many runs that answer one question: models, data fractions, folds, data sets, seeds."""
