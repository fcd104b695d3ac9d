"""The C extension; everything else is in pyproject.toml."""

import os
import sysconfig

from setuptools import Extension, setup

# One wheel for all versions from 3.11 on. Free-threaded builds have no limited API before 3.15: setuptools refuses it there.
ABI3 = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "tokenwatt.ring._ring",
            sources=["tokenwatt/ring/_ring.c", "tokenwatt/ring/core.c"],
            depends=["tokenwatt/ring/convert.h", "tokenwatt/ring/core.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if ABI3 else [],
            py_limited_api=ABI3,
            # Without a compiler or Python's headers the twin in Python does the same, slower. Under CI that would hide an error.
            optional="CI" not in os.environ,
            # What is missing from the limited API would otherwise be an implicit declaration: a truncated pointer at run time.
            extra_compile_args=[
                "-std=c11",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror=implicit-function-declaration",
                "-Werror=incompatible-pointer-types",
            ],
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if ABI3 else {},
)
