// Package agenthome is what an AI agent finds of its own in the home of a fresh guest: what is harmless of the user's
// configuration of that agent, and answers to what the agent asks before it works for the first time.
//
// Of settings, those go along that are named here, and whose values are numbers, switches or short texts: no hook, variable,
// command or key is among them. Nothing that the agent keeps beside its configuration does, such as logins and histories, no
// file that looks like a key, and nothing to which a link leads.
package agenthome
