"""What native code is made of: a parameter class, a maker and an emitter for each kind of kernel."""
