"""Backends side by side, each in a child process of its own.

``compare`` asks whether they are the same function, ``lockstep`` whether they train alike, and
``bench`` how fast they are and how much memory they take. Each has two modules: what the parent
does, and what its children do (``…_child.py``). child_process.py is the conversation between them.
rounds.py counts a child's steps, machine.py describes the machine and measures memory, deviation.py
says how far two results are apart, and matrix_products.py what a network multiplies at the least.
rivals/ has other implementations, which ``bench`` compares with.
"""
