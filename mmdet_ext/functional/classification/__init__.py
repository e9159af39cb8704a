"""Classification: losses of class scores, class weights, hard example mining."""
