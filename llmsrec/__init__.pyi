from llmsrec.api import *
