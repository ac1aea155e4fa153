package confine

// mkdirCalls are older forms of mkdirat(2).
var mkdirCalls []int
