/** The client's version, which is also the server's that it was released with. */
export const VERSION = "0.1.0";
