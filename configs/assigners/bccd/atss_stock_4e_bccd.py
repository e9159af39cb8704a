# The first row of the comparison of assigners: stock's head and assigner, four epochs.
_base_ = '../../losses/bccd/atss_stock_4e_bccd.py'
