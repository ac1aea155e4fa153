// Package login keeps the user's logins at providers of AI models on the host: a refresh token, which the provider replaces
// by another one each time that it is used, and an access token, which is put into the requests of guests for some hours.
//
// Each login has a file of its own, and one writer at a time: whoever finds an access token about to expire takes the lock
// of the login, reads the file again, asks the provider, and writes what it answered before anybody uses it. Guests have
// files of the form that the provider's program expects, with placeholders in them.
//
// A refresh token that was used is worth nothing. If this machine stops between the provider's answer and the end of
// the write, the new one is lost, and the user has to log in again. So that nothing but that moment is at risk, the space
// for the answer is there before the provider is asked, a request under way is not given up, and a draft that was written
// as a whole is taken up by whoever comes next.
package login
