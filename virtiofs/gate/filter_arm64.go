package gate

// unusedArch are older forms, of which this architecture has none.
var unusedArch []int
