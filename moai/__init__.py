"""moai: a frozen language model sees what specialist vision models see. (Public names resolve on first use.)"""
from moai.hookspecs import hookimpl
__version__ = "0.1.0"
