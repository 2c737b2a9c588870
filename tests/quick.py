"""What makes programs quick to compile, at the price of their speed. Nothing but the standard library."""

# XLA's older generator of code, without LLVM's optimisations: five times as quick, and most of the time of the tests is
# compiling. Where XLA_FLAGS is set, be it to nothing, it stays: then what is tested is what users run.
XLA_FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0"
