"""Compare backends, each in its own child process.

``compare`` checks that they compute the same function, ``lockstep`` that they train alike, and
``bench`` measures their speed and memory. Each has a module for the parent and one for its children
(``…_child.py``); child_process.py handles the communication between them. rounds.py counts a
child's steps, machine.py describes the machine and measures memory, deviation.py measures how far
two results differ, and matrix_products.py lists the matrix products in a network.
compare_rows.py turns the result of ``compare`` into a table, and report/ into an HTML page. rivals/
holds other implementations of DenseNet, with which ``bench`` compares the backends.
"""
