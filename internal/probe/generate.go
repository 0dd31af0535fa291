package probe

// The objects are committed, so that building needs no clang. verify.sh
// generates them anew and compares.

//go:generate sh generate.sh .
