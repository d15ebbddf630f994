"""Push: what FCM is told of one message (`payload`), what its answers mean (`errors`), and the way there (`fcm`)."""
